package chain

import (
	"crypto/ecdsa"
	"encoding/binary"
	"math/big"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/core"
	"github.com/ethereum/go-ethereum/core/types"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/ethereum/go-ethereum/params"
)

const (
	// DefaultGenesisTime is the genesis timestamp when none is asked for, so
	// that the same seed gives the same bytes on any day (Unix seconds).
	DefaultGenesisTime = 1_700_000_000

	// ChainID is that of geth's developer chains, which lets `geth --dev`
	// go on from a generated chain.
	ChainID = 1337

	accounts    = 1000 // externally owned accounts with funds that send transactions
	authorities = 16   // funded accounts that only sign EIP-7702 authorizations
	recorders   = 8
)

// Contracts that stand in the genesis state.
var (
	Recorders = func() (list [recorders]common.Address) {
		for i := range list {
			list[i] = common.BytesToAddress([]byte{0xc0, 0xde, byte(i)})
		}
		return list
	}()
	Refuser   = common.HexToAddress("0x000000000000000000000000000000000000bad0")
	Forwarder = common.HexToAddress("0x000000000000000000000000000000000000f0f0")
)

// config activates every fork up to Osaka, the newest that geth 1.17 accepts
// without a block access list in each block.
func config() *params.ChainConfig {
	zero := uint64(0)
	return &params.ChainConfig{
		ChainID:                 big.NewInt(ChainID),
		HomesteadBlock:          new(big.Int),
		EIP150Block:             new(big.Int),
		EIP155Block:             new(big.Int),
		EIP158Block:             new(big.Int),
		ByzantiumBlock:          new(big.Int),
		ConstantinopleBlock:     new(big.Int),
		PetersburgBlock:         new(big.Int),
		IstanbulBlock:           new(big.Int),
		MuirGlacierBlock:        new(big.Int),
		BerlinBlock:             new(big.Int),
		LondonBlock:             new(big.Int),
		ArrowGlacierBlock:       new(big.Int),
		GrayGlacierBlock:        new(big.Int),
		MergeNetsplitBlock:      new(big.Int),
		TerminalTotalDifficulty: new(big.Int),
		ShanghaiTime:            &zero,
		CancunTime:              &zero,
		PragueTime:              &zero,
		OsakaTime:               &zero,
		BlobScheduleConfig: &params.BlobScheduleConfig{
			Cancun: params.DefaultCancunBlobConfig,
			Prague: params.DefaultPragueBlobConfig,
		},
	}
}

func newGenesis(o Options, keys []*ecdsa.PrivateKey) *core.Genesis {
	funds := new(big.Int).Mul(big.NewInt(1_000_000), big.NewInt(params.Ether))
	alloc := core.SystemContractAllocs()
	for _, key := range keys {
		alloc[crypto.PubkeyToAddress(key.PublicKey)] = types.Account{Balance: funds}
	}
	for _, address := range Recorders {
		alloc[address] = types.Account{Balance: new(big.Int), Nonce: 1, Code: recorderCode}
	}
	alloc[Refuser] = types.Account{Balance: new(big.Int), Nonce: 1, Code: refuserCode}
	alloc[Forwarder] = types.Account{Balance: new(big.Int), Nonce: 1, Code: forwarderCode}
	return &core.Genesis{
		Config:     config(),
		Timestamp:  o.GenesisTime,
		ExtraData:  []byte("drover chaingen"),
		GasLimit:   o.gasLimit(),
		BaseFee:    big.NewInt(params.GWei),
		Difficulty: new(big.Int),
		Alloc:      alloc,
	}
}

// newKeys derives the private keys of all accounts from the seed.
func newKeys(seed uint64) ([]*ecdsa.PrivateKey, error) {
	keys := make([]*ecdsa.PrivateKey, accounts+authorities)
	for i := range keys {
		preimage := binary.BigEndian.AppendUint64([]byte("drover chaingen account"), seed)
		key, err := crypto.ToECDSA(crypto.Keccak256(binary.BigEndian.AppendUint64(preimage, uint64(i))))
		if err != nil {
			return nil, err
		}
		keys[i] = key
	}
	return keys, nil
}
