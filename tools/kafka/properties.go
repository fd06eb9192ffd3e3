package localkafka

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Brokers and controllers talk on listeners of their own, as a user that ACLs do not hold back: so the listeners of
// clients can be anything, and the package's own admin client always gets in.
const (
	internal     = "INTERNAL"
	controller   = "CONTROLLER"
	internalUser = "drover-broker"
)

const plainModule = "org.apache.kafka.common.security.plain.PlainLoginModule required"

// properties is the server.properties of one broker.
func (c *Cluster) properties(b *broker) string {
	own := map[string]string{
		"process.roles":                        "broker,controller",
		"node.id":                              strconv.Itoa(b.id),
		"controller.quorum.voters":             c.voters(),
		"log.dirs":                             filepath.Join(b.dir, "data"),
		"inter.broker.listener.name":           internal,
		"controller.listener.names":            controller,
		"sasl.mechanism.inter.broker.protocol": "PLAIN",
		"sasl.mechanism.controller.protocol":   "PLAIN",

		// A topic is there because a client created it, not because somebody asked for it.
		"auto.create.topics.enable": "false",
		// A leader moves when the test moves it.
		"auto.leader.rebalance.enable": "false",

		// A dead or paused broker loses its partitions after 6 s (Kafka: 9 s): a stall of the test machine is shorter.
		"broker.session.timeout.ms":    "6000",
		"broker.heartbeat.interval.ms": "1000",
		// What a broker has asked a controller that was paused is asked again soon (Kafka: after 30 s).
		"controller.socket.timeout.ms": "3000",

		// Small: the defaults are made for one broker on a machine of its own.
		"num.network.threads":                          "2",
		"num.io.threads":                               "4",
		"background.threads":                           "2",
		"log.cleaner.dedupe.buffer.size":               "2097152",
		"offsets.topic.num.partitions":                 "1",
		"transaction.state.log.num.partitions":         "1",
		"share.coordinator.state.topic.num.partitions": "1",
		"group.initial.rebalance.delay.ms":             "0",
	}
	replicas, inSync := "1", "1"
	if len(c.brokers) > 1 {
		replicas, inSync = "3", "2"
	}
	for _, topic := range []string{"offsets.topic", "transaction.state.log", "share.coordinator.state.topic"} {
		own[topic+".replication.factor"] = replicas
	}
	own["transaction.state.log.min.isr"] = inSync
	own["share.coordinator.state.topic.min.isr"] = inSync
	own["default.replication.factor"] = replicas
	own["min.insync.replicas"] = inSync

	c.listenerProperties(b, own)
	if c.opts.ACLs {
		own["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
		super := []string{"User:" + internalUser}
		for _, user := range c.opts.SuperUsers {
			super = append(super, "User:"+user)
		}
		own["super.users"] = strings.Join(super, ";")
	}
	maps.Copy(own, c.opts.Properties)

	var text strings.Builder
	for _, key := range slices.Sorted(maps.Keys(own)) {
		fmt.Fprintf(&text, "%s=%s\n", key, strings.ReplaceAll(own[key], `\`, `\\`))
	}
	return text.String()
}

func (c *Cluster) listenerProperties(b *broker, own map[string]string) {
	bind := []string{internal + "://" + b.addr(internal), controller + "://" + b.addr(controller)}
	advertise := bind[:1:1]
	protocols := []string{internal + ":SASL_PLAINTEXT", controller + ":SASL_PLAINTEXT"}
	for _, l := range c.opts.Listeners {
		name := string(l)
		bind = append(bind, name+"://"+b.addr(name))
		advertise = append(advertise, name+"://"+b.addr(name))
		protocols = append(protocols, name+":"+l.protocol())
		prefix := "listener.name." + strings.ToLower(name) + "."
		if l.protocol() != "PLAINTEXT" {
			own[prefix+"ssl.keystore.type"] = "PEM"
			own[prefix+"ssl.keystore.location"] = c.tls.keystore(l)
			own[prefix+"ssl.truststore.type"] = "PEM"
			own[prefix+"ssl.truststore.location"] = c.tls.CA
			own[prefix+"ssl.client.auth"] = "none"
		}
		switch l {
		case MutualTLS:
			own[prefix+"ssl.client.auth"] = "required"
			own[prefix+"ssl.principal.mapping.rules"] = "RULE:^CN=([^,]+).*$/$1/"
		case SASLTLS:
			own[prefix+"sasl.enabled.mechanisms"] = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"
			plain := plainModule
			for _, u := range c.opts.Users {
				plain += fmt.Sprintf(` user_%s="%s"`, u.Name, u.Password)
			}
			own[prefix+"plain.sasl.jaas.config"] = plain + ";"
			for _, hash := range []string{"256", "512"} {
				own[prefix+"scram-sha-"+hash+".sasl.jaas.config"] = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
			}
		}
	}
	for _, name := range []string{internal, controller} {
		prefix := "listener.name." + strings.ToLower(name) + "."
		own[prefix+"sasl.enabled.mechanisms"] = "PLAIN"
		own[prefix+"plain.sasl.jaas.config"] = fmt.Sprintf(`%s username="%s" password="%s" user_%s="%s";`,
			plainModule, internalUser, c.state.Secret, internalUser, c.state.Secret)
	}
	own["listeners"] = strings.Join(bind, ",")
	own["advertised.listeners"] = strings.Join(advertise, ",")
	own["listener.security.protocol.map"] = strings.Join(protocols, ",")
}

func (c *Cluster) voters() string {
	var voters []string
	for _, b := range c.brokers {
		voters = append(voters, fmt.Sprintf("%d@%s", b.id, b.addr(controller)))
	}
	return strings.Join(voters, ",")
}
