package main

import (
	"errors"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/drover-io/drover/changelog"
)

// passwordEnv has no flag beside it: command lines can be read by everybody on a machine.
const passwordEnv = "DROVER_KAFKA_SASL_PASSWORD"

// kafkaFlags are those of every command that talks to Kafka: which cluster, where, and how to get in.
func kafkaFlags() []cli.Flag {
	return append(clusterFlags(),
		boolFlag("kafka.tls", "encrypt the connections to the brokers"),
		stringFlag("kafka.tls.ca", "", "PEM file of the CA that signed the brokers' certificates (default: the system's)"),
		stringFlag("kafka.tls.cert", "", "PEM file of the client certificate, if the brokers want one"),
		stringFlag("kafka.tls.key", "", "PEM file of the client certificate's key"),
		stringFlag("kafka.tls.server-name", "", "name in the brokers' certificates (default: the host connected to)"),
		stringFlag("kafka.sasl.mechanism", "", "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or AWS_MSK_IAM (default: no user)"),
		stringFlag("kafka.sasl.user", "", "name of the Kafka user"),
		stringFlag("kafka.sasl.password-file", "", "file with the user's password; or set the environment variable "+passwordEnv),
		stringFlag("kafka.aws.region", "", "region of the MSK cluster, for AWS_MSK_IAM (default: the AWS configuration's)"),
		stringFlag("kafka.rack", "", "rack or availability zone of this machine, to read from the nearest replica"),
	)
}

// kafkaOptions reads kafkaFlags. It reads all files, so that a wrong configuration is told before anything starts.
func kafkaOptions(c *cli.Context) (changelog.Options, error) {
	o := changelog.Options{
		Brokers: split(c.String("kafka.brokers")), Cluster: c.String("cluster"), Rack: c.String("kafka.rack"),
		Security: changelog.Security{
			TLS: changelog.TLS{
				Enable: c.Bool("kafka.tls"), CAFile: c.String("kafka.tls.ca"), CertFile: c.String("kafka.tls.cert"),
				KeyFile: c.String("kafka.tls.key"), ServerName: c.String("kafka.tls.server-name"),
			},
			SASL: changelog.SASL{
				Mechanism: changelog.SASLMechanism(c.String("kafka.sasl.mechanism")), User: c.String("kafka.sasl.user"),
				PasswordFile: c.String("kafka.sasl.password-file"), Password: changelog.Secret(os.Getenv(passwordEnv)),
				Region: c.String("kafka.aws.region"),
			},
		},
	}
	err := o.Security.Check()
	if errors.Is(err, changelog.ErrConfiguration) {
		err = usageError(err)
	}
	return o, err
}
