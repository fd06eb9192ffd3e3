package ebs

// System is what a Backend does on the host itself.
type System interface {
	// VolumeOf is the id (vol-…) of the EBS volume that holds a directory.
	VolumeOf(dir string) (string, error)
	// Below is a directory's path below the root of the file system it is on: where it is found when that is mounted elsewhere.
	Below(dir string) (string, error)
	// Sync writes all that was written below dir to its volume.
	Sync(dir string) error
	// Device is the path of an attached volume's block device, "" while it has not appeared. attachedAs is EC2's name for it.
	Device(volume, attachedAs string) (string, error)
	// Mount mounts device at dir, which it makes.
	Mount(device, dir string) error
	// Unmount undoes Mount; it is no error when nothing is mounted there.
	Unmount(dir string) error
}
