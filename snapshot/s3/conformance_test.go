package s3store

import (
	"testing"

	"github.com/drover-io/drover/snapshot"
	"github.com/drover-io/drover/snapshot/storetest"
)

func TestConformanceOnVersityGateway(t *testing.T) {
	deadline(t)
	g := startGateway(t)
	storetest.Run(t, func(t *testing.T) snapshot.Store { return open(t, options(g.URL())) })
}

func TestConformanceOnMoto(t *testing.T) {
	deadline(t)
	url := startMoto(t)
	storetest.Run(t, func(t *testing.T) snapshot.Store { return open(t, options(url)) })
}
