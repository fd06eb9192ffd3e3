package localkafka

import localserver "github.com/drover-io/drover/tools/server"

// ports hands out ports that stay this cluster's until release, so that a killed broker finds its own port free again.
type ports struct {
	next   int // > 0: in order from here
	leases []func()
}

func (p *ports) take() (int, error) {
	want := p.next
	if want > 0 {
		p.next++
	}
	return p.lease(want)
}

// claim takes this port; it fails when somebody listens on it or another local server holds it.
func (p *ports) claim(port int) error {
	_, err := p.lease(port)
	return err
}

func (p *ports) lease(want int) (int, error) {
	port, release, err := localserver.TakePort(want)
	if err == nil {
		p.leases = append(p.leases, release)
	}
	return port, err
}

func (p *ports) release() {
	for _, release := range p.leases {
		release()
	}
	p.leases = nil
}
