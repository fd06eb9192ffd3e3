//go:build !linux

package localserver

import "syscall"

func dieWithParent(*syscall.SysProcAttr) {}

func leasePort(int) (release func(), ok bool) { return func() {}, true }

func firstEphemeralPort() int { return 32768 }
