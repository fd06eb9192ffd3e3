module github.com/drover-io/drover

go 1.26.0

require (
	github.com/ethereum/go-ethereum v1.17.7
	github.com/segmentio/kafka-go v0.4.51
)
