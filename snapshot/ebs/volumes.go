package ebs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/drover-io/drover/snapshot"
)

// tagSnapshot marks a volume that Restore made, with the snapshot it came from.
const tagSnapshot = "drover:snapshot"

// tagVerify marks one that Cluster.Verify made, with instance and mount point: nobody else has a use for it.
const tagVerify = "drover:verify"

// RestoreOptions say where a snapshot is brought back to, and as what kind of volume.
type RestoreOptions struct {
	// Snapshot to bring back.
	Snapshot string
	// Instance to attach to, and its availability Zone: this host's.
	Instance, Zone string
	// Mount is the directory to mount at; it is made if it is not there.
	Mount string
	// Type of the volume; default gp3. IOPS and Throughput (MiB/s) 0 = the type's own.
	Type             string
	IOPS, Throughput int32
	// InitializationRate has EBS read the whole volume from S3 at this rate in the background, 100 to 300 MiB/s; 0 = block by
	// block as each is first read, which is slow for months-old state. Paid for by the GiB.
	InitializationRate int32
	// KMSKey re-encrypts the volume; "" = as the snapshot is.
	KMSKey string

	verify string // value of tagVerify
}

// Volume is what Restore made.
type Volume struct {
	ID       string
	Snapshot string
	Instance string
	Device   string // as EC2 names it
	Mount    string
}

// Restore makes a volume from a snapshot, attaches it to this host, and mounts it. What it made is removed again when it
// fails; when its process is killed, Clean finds the volume.
func (b *Backend) Restore(ctx context.Context, opts RestoreOptions) (_ Volume, err error) {
	if opts.Type == "" {
		opts.Type = string(types.VolumeTypeGp3)
	}
	if rate := opts.InitializationRate; rate != 0 && (rate < 100 || rate > 300) {
		return Volume{}, fmt.Errorf("%w: an initialization rate of %d MiB/s: EBS takes 100 to 300", snapshot.ErrUsage, rate)
	}
	v := Volume{Snapshot: opts.Snapshot, Instance: opts.Instance, Mount: opts.Mount}
	if v.ID, err = b.makeVolume(ctx, opts); err != nil {
		return Volume{}, err
	}
	defer func() {
		if err == nil {
			return
		}
		// ctx may be why it failed.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
		defer cancel()
		if left := b.Release(ctx, v); left != nil {
			err = errors.Join(err, fmt.Errorf("volume %s is left over and paid for: %w", v.ID, left))
		}
	}()
	if err := b.waitVolume(ctx, v.ID, types.VolumeStateAvailable); err != nil {
		return Volume{}, err
	}
	if v.Device, err = b.attach(ctx, v.ID, opts.Instance); err != nil {
		return Volume{}, err
	}
	if err := b.waitVolume(ctx, v.ID, types.VolumeStateInUse); err != nil {
		return Volume{}, err
	}
	var device string
	err = b.wait(ctx, v.ID+" appears as a device", func() (bool, error) {
		var err error
		device, err = b.opts.System.Device(v.ID, v.Device)
		return device != "", err
	})
	if err != nil {
		return Volume{}, err
	}
	if err := b.opts.System.Mount(device, opts.Mount); err != nil {
		return Volume{}, fmt.Errorf("mount %s at %s: %w", device, opts.Mount, err)
	}
	b.opts.Logger.Info("EBS snapshot restored", "snapshot", opts.Snapshot, "volume", v.ID, "device", device, "mount", opts.Mount)
	return v, nil
}

// releaseLimit ends the removal of what a failed Restore made.
const releaseLimit = 2 * time.Minute

func (b *Backend) makeVolume(ctx context.Context, opts RestoreOptions) (string, error) {
	marks := map[string]string{
		tagCluster: b.opts.Cluster, tagSnapshot: opts.Snapshot, "Name": "drover " + b.opts.Cluster + " from " + opts.Snapshot,
	}
	if opts.verify != "" {
		marks[tagVerify] = opts.verify
	}
	in := &ec2.CreateVolumeInput{
		SnapshotId:        &opts.Snapshot,
		AvailabilityZone:  &opts.Zone,
		VolumeType:        types.VolumeType(opts.Type),
		ClientToken:       aws.String(rand.Text()), // a request that is repeated because its answer was lost makes one volume
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: tags(marks)}},
	}
	if opts.IOPS > 0 {
		in.Iops = &opts.IOPS
	}
	if opts.Throughput > 0 {
		in.Throughput = &opts.Throughput
	}
	if opts.InitializationRate > 0 {
		in.VolumeInitializationRate = &opts.InitializationRate
	}
	if opts.KMSKey != "" {
		in.KmsKeyId, in.Encrypted = &opts.KMSKey, aws.Bool(true)
	}
	out, err := b.client.CreateVolume(ctx, in)
	if err != nil {
		return "", b.explain(ctx, "make a volume from "+opts.Snapshot, err)
	}
	return aws.ToString(out.VolumeId), nil
}

// attach tries the names that AWS recommends for data volumes, /dev/sdf to /dev/sdp, that the instance has free.
func (b *Backend) attach(ctx context.Context, volume, instance string) (string, error) {
	used, err := b.volumes(ctx, types.Filter{Name: aws.String("attachment.instance-id"), Values: []string{instance}})
	if err != nil {
		return "", err
	}
	var taken []string
	for _, v := range used {
		for _, a := range v.Attachments {
			taken = append(taken, aws.ToString(a.Device))
		}
	}
	for letter := 'f'; letter <= 'p'; letter++ {
		device := "/dev/sd" + string(letter)
		if slices.Contains(taken, device) {
			continue
		}
		_, err := b.client.AttachVolume(ctx, &ec2.AttachVolumeInput{VolumeId: &volume, InstanceId: &instance, Device: &device})
		switch {
		case err == nil:
			return device, nil
		case strings.Contains(err.Error(), "already in use"): // by somebody who attached meanwhile; EC2 has no code of its own for it
			continue
		}
		return "", b.explain(ctx, "attach "+volume+" to "+instance, err)
	}
	return "", fmt.Errorf("%s: instance %s has no free device name from /dev/sdf to /dev/sdp: detach a volume", b, instance)
}

// Release unmounts a volume, detaches it and deletes it. It goes on where an earlier call, or Restore, stopped.
func (b *Backend) Release(ctx context.Context, v Volume) error {
	if v.Mount != "" {
		if err := b.opts.System.Unmount(v.Mount); err != nil {
			return fmt.Errorf("unmount %s: %w", v.Mount, err)
		}
	}
	found, err := b.volumes(ctx, types.Filter{Name: aws.String("volume-id"), Values: []string{v.ID}})
	if err != nil || len(found) == 0 {
		return err
	}
	for _, a := range found[0].Attachments {
		if a.State == types.VolumeAttachmentStateDetaching {
			continue
		}
		if _, err := b.client.DetachVolume(ctx, &ec2.DetachVolumeInput{VolumeId: &v.ID, InstanceId: a.InstanceId, Device: a.Device}); err != nil {
			return b.explain(ctx, "detach "+v.ID, err)
		}
	}
	if err := b.waitVolume(ctx, v.ID, types.VolumeStateAvailable); err != nil {
		return err
	}
	if _, err := b.client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: &v.ID}); err != nil {
		return b.explain(ctx, "delete "+v.ID, err)
	}
	return nil
}

// Clean deletes the volumes that Restore made for this cluster, that nothing is attached to, and that are older than age:
// what a killed Restore left. It returns their ids.
func (b *Backend) Clean(ctx context.Context, age time.Duration) (deleted []string, err error) {
	found, err := b.volumes(ctx,
		types.Filter{Name: aws.String("tag:" + tagCluster), Values: []string{b.opts.Cluster}},
		types.Filter{Name: aws.String("tag-key"), Values: []string{tagSnapshot}},
		types.Filter{Name: aws.String("status"), Values: []string{string(types.VolumeStateAvailable)}})
	if err != nil {
		return nil, err
	}
	for _, v := range found {
		if time.Since(aws.ToTime(v.CreateTime)) < age {
			continue
		}
		if _, err := b.client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: v.VolumeId}); err != nil {
			return deleted, b.explain(ctx, "delete "+aws.ToString(v.VolumeId), err)
		}
		deleted = append(deleted, aws.ToString(v.VolumeId))
		b.opts.Logger.Info("a volume that nobody uses is deleted", "volume", aws.ToString(v.VolumeId), "snapshot", aws.ToString(v.SnapshotId))
	}
	return deleted, nil
}

func (b *Backend) waitVolume(ctx context.Context, id string, want types.VolumeState) error {
	return b.wait(ctx, fmt.Sprintf("%s is %s", id, want), func() (bool, error) {
		found, err := b.volumes(ctx, types.Filter{Name: aws.String("volume-id"), Values: []string{id}})
		if err != nil || len(found) == 0 { // a new one may not be listed yet
			return false, err
		}
		if found[0].State == types.VolumeStateError {
			return false, fmt.Errorf("%s: EBS could not make volume %s: is the KMS key accessible?", b, id)
		}
		attached := slices.ContainsFunc(found[0].Attachments, func(a types.VolumeAttachment) bool { return a.State == types.VolumeAttachmentStateAttached })
		return found[0].State == want && attached == (want == types.VolumeStateInUse), nil
	})
}

func (b *Backend) volumes(ctx context.Context, filters ...types.Filter) ([]types.Volume, error) {
	var all []types.Volume
	pages := ec2.NewDescribeVolumesPaginator(b.client, &ec2.DescribeVolumesInput{Filters: filters})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, b.explain(ctx, "list volumes", err)
		}
		all = append(all, page.Volumes...)
	}
	return all, nil
}
