//go:build !linux

package localkafka

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}

func stopped(int) bool { return true }

func leasePort(int) (release func(), ok bool) { return func() {}, true }

func ephemeralPorts() (low, high int) { return 32768, 65535 }
