package chain

import (
	"math/big"
	"math/rand/v2"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
	"github.com/holiman/uint256"
)

// keySpace bounds the keys that are recorded, so that slots are overwritten and
// cleared, not only added.
const keySpace = 20_000

// writer puts transactions into one block.
type writer struct {
	*Generator
	block  *core.BlockGen
	parent *types.Block
	random *rand.Rand
}

// call is a transaction before it has an envelope.
type call struct {
	to    *common.Address // nil creates a contract
	value *big.Int
	data  []byte
	gas   uint64
}

// transaction adds the i-th transaction of the block.
func (w *writer) transaction(i int) {
	sender := w.random.IntN(accounts)
	number := w.block.Number().Uint64()
	switch {
	case i == 7 && number%16 == 0:
		w.addBlob(sender)
		return
	case i == 8 && number%8 == 0:
		w.addSetCode(sender)
		return
	}
	// The mix gets cheaper above a base fee of 1 gwei and dearer below it, which
	// keeps the base fee near there for as long as the chain is.
	transfers := 30
	if w.block.BaseFee().Cmp(big.NewInt(params.GWei)) < 0 {
		transfers = 0
	}
	var c call
	switch kind := w.random.IntN(100); {
	case kind < transfers: // between accounts that exist
		c = w.transfer(w.addresses[w.random.IntN(len(w.addresses))])
	case kind < transfers+15: // to an account that nobody has seen
		c = w.transfer(common.BigToAddress(new(big.Int).SetUint64(w.random.Uint64())))
	case kind < 82:
		c = w.record(Recorders[w.random.IntN(recorders)])
	case kind < 86:
		c = w.record(w.created())
	case kind < 92:
		c = w.forward()
	case kind < 95:
		c = call{data: recorderInit, gas: 400_000}
	case kind < 96:
		c = call{data: ephemeralInit, value: big.NewInt(1), gas: 100_000}
	default:
		c = call{to: &Refuser, data: word(w.random.Uint64N(2)), gas: 30_000}
	}
	w.add(sender, c)
}

func (w *writer) transfer(to common.Address) call {
	return call{to: &to, value: new(big.Int).SetUint64(1 + w.random.Uint64N(params.GWei)), gas: 50_000}
}

func (w *writer) record(at common.Address) call {
	value := w.random.Uint64()
	if w.random.IntN(10) == 0 {
		value = 0 // clears the slot
	}
	return call{to: &at, data: append(word(w.random.Uint64N(keySpace)), word(value)...), gas: 150_000}
}

func (w *writer) forward() call {
	target := Recorders[w.random.IntN(recorders)]
	data := append(common.LeftPadBytes(target[:], 32), word(w.random.Uint64N(keySpace))...)
	return call{to: &Forwarder, data: append(data, word(w.random.Uint64())...), gas: 400_000}
}

// created is a recorder that the parent block deployed, if it deployed one.
func (w *writer) created() common.Address {
	for _, tx := range w.parent.Transactions() {
		if tx.To() == nil && len(tx.Data()) == len(recorderInit) {
			from, err := types.Sender(w.signer, tx)
			if err != nil {
				panic(err)
			}
			return crypto.CreateAddress(from, tx.Nonce())
		}
	}
	return Recorders[0]
}

// add wraps the call in a legacy, access-list or dynamic-fee transaction.
func (w *writer) add(sender int, c call) {
	var (
		nonce    = w.block.TxNonce(w.addresses[sender])
		tip      = big.NewInt(int64(1 + w.random.IntN(params.GWei)))
		feeCap   = new(big.Int).Add(new(big.Int).Mul(w.block.BaseFee(), big.NewInt(2)), tip)
		contents types.TxData
	)
	switch kind := w.random.IntN(10); {
	case kind < 3:
		contents = &types.LegacyTx{Nonce: nonce, GasPrice: feeCap, Gas: c.gas, To: c.to, Value: c.value, Data: c.data}
	case kind < 5:
		contents = &types.AccessListTx{ChainID: w.spec.Config.ChainID, Nonce: nonce, GasPrice: feeCap, Gas: c.gas,
			To: c.to, Value: c.value, Data: c.data, AccessList: accessList(c.to)}
	default:
		contents = &types.DynamicFeeTx{ChainID: w.spec.Config.ChainID, Nonce: nonce, GasTipCap: tip, GasFeeCap: feeCap,
			Gas: c.gas, To: c.to, Value: c.value, Data: c.data}
	}
	w.block.AddTx(types.MustSignNewTx(w.keys[sender], w.signer, contents))
}

// addBlob adds a blob transaction as it stands in a block, without its blobs.
func (w *writer) addBlob(sender int) {
	versioned := crypto.Keccak256Hash(word(w.random.Uint64()))
	versioned[0] = 0x01 // the version of a KZG commitment's hash
	to := w.addresses[w.random.IntN(accounts)]
	fees := uint256.MustFromBig(new(big.Int).Mul(w.block.BaseFee(), big.NewInt(2)))
	w.block.AddTx(types.MustSignNewTx(w.keys[sender], w.signer, &types.BlobTx{
		ChainID:    uint256.MustFromBig(w.spec.Config.ChainID),
		Nonce:      w.block.TxNonce(w.addresses[sender]),
		GasTipCap:  uint256.NewInt(1),
		GasFeeCap:  fees.AddUint64(fees, 1),
		Gas:        50_000,
		To:         to,
		Value:      uint256.NewInt(1),
		BlobFeeCap: uint256.NewInt(params.GWei),
		BlobHashes: []common.Hash{versioned},
	}))
}

// addSetCode lets an authority delegate its code to a recorder, and calls it.
func (w *writer) addSetCode(sender int) {
	authority := accounts + w.random.IntN(authorities)
	chainID := uint256.MustFromBig(w.spec.Config.ChainID)
	authorization, err := types.SignSetCode(w.keys[authority], types.SetCodeAuthorization{
		ChainID: *chainID,
		Address: Recorders[w.random.IntN(recorders)],
		Nonce:   w.block.TxNonce(w.addresses[authority]),
	})
	if err != nil {
		panic(err)
	}
	fees := uint256.MustFromBig(new(big.Int).Mul(w.block.BaseFee(), big.NewInt(2)))
	w.block.AddTx(types.MustSignNewTx(w.keys[sender], w.signer, &types.SetCodeTx{
		ChainID:   chainID,
		Nonce:     w.block.TxNonce(w.addresses[sender]),
		GasTipCap: uint256.NewInt(1),
		GasFeeCap: fees.AddUint64(fees, 1),
		Gas:       300_000,
		To:        w.addresses[authority],
		Value:     new(uint256.Int),
		Data:      append(word(w.random.Uint64N(keySpace)), word(w.random.Uint64())...),
		AuthList:  []types.SetCodeAuthorization{authorization},
	}))
}

// accessList names the counter slot of the contract that is called.
func accessList(to *common.Address) types.AccessList {
	if to == nil {
		return types.AccessList{{Address: Forwarder}}
	}
	return types.AccessList{{Address: *to, StorageKeys: []common.Hash{{}}}}
}

func word(value uint64) []byte {
	return common.LeftPadBytes(new(big.Int).SetUint64(value).Bytes(), 32)
}
