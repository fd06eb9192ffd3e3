package chain

import (
	"encoding/binary"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// RecordedTopic is the first topic of every log that a recorder emits.
var RecordedTopic = crypto.Keccak256Hash([]byte("Recorded(uint256,uint256,uint256)"))

// recorderCode keeps a mapping in storage slot 1 and a counter in slot 0.
//
//	calldata key, value   mapping[key] = value, counter++, one log with 1 to 4 topics, returns the counter
//	calldata key          returns mapping[key]
var recorderCode = assemble(`
	PUSH0 CALLDATALOAD PUSH0 MSTORE             ; mem[0] = key
	PUSH1 0x01 PUSH1 0x20 MSTORE                ; mem[32] = 1, the mapping's slot
	CALLDATASIZE PUSH1 0x20 EQ @get JUMPI

	PUSH1 0x20 CALLDATALOAD                     ; value
	PUSH1 0x40 PUSH0 KECCAK256                  ; value slot
	SSTORE
	PUSH0 SLOAD PUSH1 0x01 ADD                  ; count
	DUP1 PUSH0 SSTORE

	PUSH1 0x20 CALLDATALOAD PUSH1 0x20 MSTORE   ; mem[32] = value
	DUP1 PUSH1 0x40 MSTORE                      ; mem[64] = count
	DUP1 PUSH1 0x03 AND                         ; count selector
	DUP1 PUSH1 0x01 EQ @log2 JUMPI
	DUP1 PUSH1 0x02 EQ @log3 JUMPI
	DUP1 PUSH1 0x03 EQ @log4 JUMPI

	PUSH32 ` + RecordedTopic.Hex() + ` PUSH1 0x60 PUSH0 LOG1
	@done JUMP
log2:
	CALLER
	PUSH32 ` + RecordedTopic.Hex() + ` PUSH1 0x60 PUSH0 LOG2
	@done JUMP
log3:
	PUSH0 CALLDATALOAD CALLER
	PUSH32 ` + RecordedTopic.Hex() + ` PUSH1 0x60 PUSH0 LOG3
	@done JUMP
log4:
	DUP2 PUSH0 CALLDATALOAD CALLER
	PUSH32 ` + RecordedTopic.Hex() + ` PUSH1 0x60 PUSH0 LOG4
done:
	PUSH1 0x20 PUSH1 0x40 RETURN                ; count

get:
	PUSH1 0x40 PUSH0 KECCAK256 SLOAD
	PUSH0 MSTORE PUSH1 0x20 PUSH0 RETURN
`)

// refuserCode fails: with Error("refused") when its first word is not zero,
// else with an invalid opcode, which burns all gas.
var refuserCode = assemble(`
	PUSH0 CALLDATALOAD @revert JUMPI
	INVALID
revert:
	PUSH4 0x08c379a0 PUSH1 0xe0 SHL PUSH0 MSTORE ; Error(string)
	PUSH1 0x20 PUSH1 0x04 MSTORE                 ; offset
	PUSH1 0x07 PUSH1 0x24 MSTORE                 ; length
	PUSH7 0x72656675736564 PUSH1 0xc8 SHL PUSH1 0x44 MSTORE
	PUSH1 0x64 PUSH0 REVERT
`)

// forwarderCode(target, key, value) makes calls inside calls: it records
// through CALL, reads through STATICCALL, records into its own storage through
// DELEGATECALL, swallows the refuser's revert, and creates a child by CREATE2
// with the key as salt (which fails, unnoticed, for a key seen before).
var forwarderCode = assemble(`
	PUSH1 0x40 PUSH1 0x20 PUSH0 CALLDATACOPY                              ; mem[0..64] = key, value
	PUSH1 0x20 PUSH1 0x40 PUSH1 0x40 PUSH0 PUSH0 PUSH0 CALLDATALOAD GAS CALL POP
	PUSH1 0x20 PUSH1 0x60 PUSH1 0x20 PUSH0 PUSH0 CALLDATALOAD GAS STATICCALL POP
	PUSH1 0x20 PUSH1 0x40 PUSH1 0x40 PUSH0 PUSH0 CALLDATALOAD GAS DELEGATECALL POP
	PUSH1 0x20 PUSH1 0x80 PUSH1 0x20 PUSH1 0x20 PUSH0 PUSH20 ` + Refuser.Hex() + ` PUSH2 0x2710 CALL POP
	PUSH5 0x602a5ff300 PUSH1 0xd8 SHL PUSH1 0xa0 MSTORE                   ; init code: return 42 zero bytes
	PUSH0 MLOAD PUSH1 0x05 PUSH1 0xa0 PUSH0 CREATE2
	PUSH1 0xc0 MSTORE
	PUSH1 0xa0 PUSH1 0x40 RETURN
`)

// ephemeralInit creates a contract that destroys itself before it exists for
// anyone else, paying its value back to the sender.
var ephemeralInit = assemble(`CALLER SELFDESTRUCT`)

// recorderInit deploys a recorder whose counter starts at the block number.
var recorderInit = deployer(recorderCode)

func deployer(runtime []byte) []byte {
	size := binary.BigEndian.AppendUint16(nil, uint16(len(runtime)))
	prefix := func(offset byte) []byte {
		return assemble(`
			NUMBER PUSH0 SSTORE
			PUSH2 ` + common.Bytes2Hex(size) + ` PUSH1 ` + common.Bytes2Hex([]byte{offset}) + ` PUSH0 CODECOPY
			PUSH2 ` + common.Bytes2Hex(size) + ` PUSH0 RETURN`)
	}
	return append(prefix(byte(len(prefix(0)))), runtime...)
}
