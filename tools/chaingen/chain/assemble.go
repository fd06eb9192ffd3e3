package chain

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/ethereum/go-ethereum/core/vm"
)

// assemble turns EVM assembly into bytecode. Words are separated by white space
// and a semicolon begins a comment that runs to the end of its line:
//
//	SLOAD        an opcode, by go-ethereum's name
//	PUSHn        followed by its n operand bytes as 0x… (left-padded with zeros)
//	name:        a JUMPDEST that can be jumped to
//	@name        PUSH2 with the position of that JUMPDEST
//
// It panics on a mistake: its only inputs are the constants of this package.
func assemble(source string) []byte {
	var (
		code   []byte
		labels = make(map[string]int)
		uses   = make(map[int]string)
		words  []string
	)
	for _, line := range strings.Split(source, "\n") {
		line, _, _ = strings.Cut(line, ";")
		words = append(words, strings.Fields(line)...)
	}
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case strings.HasSuffix(word, ":"):
			labels[strings.TrimSuffix(word, ":")] = len(code)
			code = append(code, byte(vm.JUMPDEST))
		case strings.HasPrefix(word, "@"):
			uses[len(code)+1] = word[1:]
			code = append(code, byte(vm.PUSH2), 0, 0)
		default:
			op := vm.StringToOp(word)
			if op == vm.STOP && word != "STOP" {
				panic(fmt.Sprintf("chain: no opcode %q", word))
			}
			code = append(code, byte(op))
			if op >= vm.PUSH1 && op <= vm.PUSH32 {
				i++
				code = append(code, operand(words[i], int(op-vm.PUSH1)+1)...)
			}
		}
	}
	for at, label := range uses {
		target, ok := labels[label]
		if !ok {
			panic(fmt.Sprintf("chain: no label %q", label))
		}
		code[at], code[at+1] = byte(target>>8), byte(target)
	}
	return code
}

func operand(word string, size int) []byte {
	digits := strings.TrimPrefix(word, "0x")
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	value, err := hex.DecodeString(digits)
	if err != nil || len(value) > size {
		panic(fmt.Sprintf("chain: bad operand %q for %d bytes", word, size))
	}
	return append(make([]byte, size-len(value)), value...)
}
