// Package gethcompat holds tests that compare chaindata with go-ethereum's own code: its key schema, and its freezer's
// repair of a copy made while blocks were frozen. They live apart so that chaindata itself does not need go-ethereum.
package gethcompat
