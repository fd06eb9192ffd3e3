package localkafka

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// ClientName is the common name of the client certificates, and so the user that MutualTLS sees.
const ClientName = "drover-client"

// TLSFiles are the PEM files that New makes, new ones each time.
type TLSFiles struct {
	// CA signed the brokers' certificates and the client's; OtherCA signed nothing.
	CA, OtherCA string
	// ClientCert and ClientKey are for MutualTLS.
	ClientCert, ClientKey string
	// ExpiredCert is a client certificate of the CA that ended yesterday.
	ExpiredCert, ExpiredKey string

	server, expiredServer string // key and certificate in one file: what Kafka calls a PEM key store
}

// ClientConfig trusts the cluster's CA and shows the client certificate to a broker that asks for one.
func (f TLSFiles) ClientConfig() (*tls.Config, error) {
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(f.ClientCert, f.ClientKey)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
}

func (f TLSFiles) keystore(l Listener) string {
	if l == ExpiredTLS {
		return f.expiredServer
	}
	return f.server
}

type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

const (
	day      = 24 * time.Hour
	lifetime = 30 * day // longer than any soak, shorter than anybody's trust
)

func makeTLS(dir string) (TLSFiles, error) {
	at := func(name string) string { return filepath.Join(dir, name) }
	f := TLSFiles{
		CA: at("ca.pem"), OtherCA: at("other-ca.pem"),
		ClientCert: at("client.pem"), ClientKey: at("client-key.pem"),
		ExpiredCert: at("expired-client.pem"), ExpiredKey: at("expired-client-key.pem"),
		server: at("server.pem"), expiredServer: at("expired-server.pem"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return f, err
	}
	ca, err := newAuthority(f.CA)
	if err != nil {
		return f, err
	}
	if _, err := newAuthority(f.OtherCA); err != nil {
		return f, err
	}
	now := time.Now()
	for _, leaf := range []struct {
		name      string
		until     time.Time
		cert, key string
	}{
		{"localhost", now.Add(lifetime), f.server, f.server},
		{"localhost", now.Add(-day), f.expiredServer, f.expiredServer},
		{ClientName, now.Add(lifetime), f.ClientCert, f.ClientKey},
		{ClientName, now.Add(-day), f.ExpiredCert, f.ExpiredKey},
	} {
		if err := ca.issue(leaf.name, leaf.until, leaf.cert, leaf.key); err != nil {
			return f, err
		}
	}
	return f, nil
}

func newAuthority(file string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Drover local Kafka CA"},
		NotBefore:             time.Now().Add(-3 * day),
		NotAfter:              time.Now().Add(lifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return &authority{key: key, cert: cert}, os.WriteFile(file, block, 0o600)
}

// issue writes a certificate for 127.0.0.1 and localhost, and its key, which may go to the same file.
func (ca *authority) issue(name string, until time.Time, certFile, keyFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-2 * day),
		NotAfter:     until,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key) // the only form of key that Kafka reads
	if err != nil {
		return err
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if certFile == keyFile {
		return os.WriteFile(certFile, append(keyPEM, certPEM...), 0o600)
	}
	if err := os.WriteFile(keyFile, keyPEM, 0o600); err != nil {
		return err
	}
	return os.WriteFile(certFile, certPEM, 0o600)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail on a supported system
	}
	return n
}
