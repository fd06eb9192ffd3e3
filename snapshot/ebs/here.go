package ebs

import (
	"context"
	"fmt"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/drover-io/drover/snapshot"
)

// Here asks the instance metadata service (IMDS) which instance this host is, in which availability zone and region. On
// another host than an EC2 instance the error is a snapshot.ErrUsage. AWS_EC2_METADATA_SERVICE_ENDPOINT names another service.
func Here(ctx context.Context) (instance, zone, region string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cfg, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return "", "", "", fmt.Errorf("%w: AWS configuration: %w", snapshot.ErrUsage, err)
	}
	out, err := imds.NewFromConfig(cfg).GetInstanceIdentityDocument(ctx, nil)
	if err != nil {
		return "", "", "", fmt.Errorf("%w: this host's metadata service does not tell instance and availability zone: name them (%w)", snapshot.ErrUsage, err)
	}
	return out.InstanceID, out.AvailabilityZone, out.Region, nil
}
