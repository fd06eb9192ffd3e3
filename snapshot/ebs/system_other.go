//go:build !linux

package ebs

import "errors"

// Linux is the System of an EC2 instance; there is none here.
func Linux() System { return none{} }

type none struct{}

var errNotLinux = errors.New("EBS volumes are handled on Linux only")

func (none) VolumeOf(string) (string, error)       { return "", errNotLinux }
func (none) Below(string) (string, error)          { return "", errNotLinux }
func (none) Sync(string) error                     { return errNotLinux }
func (none) Device(string, string) (string, error) { return "", errNotLinux }
func (none) Mount(string, string) error            { return errNotLinux }
func (none) Unmount(string) error                  { return errNotLinux }
