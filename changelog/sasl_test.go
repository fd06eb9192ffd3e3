package changelog

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/segmentio/kafka-go/sasl"
)

// awsEnvironment leaves the AWS SDK nothing but these credentials.
func awsEnvironment(t *testing.T, id, secret, token string) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": id, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token,
		"AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "",
	} {
		t.Setenv(name, value)
	}
}

func startIAM(o SASL) ([]byte, error) {
	o.Mechanism = SASLAWSMSKIAM
	ctx := sasl.WithMetadata(context.Background(), &sasl.Metadata{Host: "b-1.example.kafka.eu-west-1.amazonaws.com", Port: 9098})
	_, payload, err := newSigner(o, slog.New(slog.DiscardHandler)).Start(ctx)
	return payload, err
}

// TestIAMSignsWithTheGivenCredentials checks the signature by the steps of AWS's
// Signature Version 4 documentation, not by the library that made it.
func TestIAMSignsWithTheGivenCredentials(t *testing.T) {
	awsEnvironment(t, "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "token/with+signs=")
	payload, err := startIAM(SASL{Region: "eu-west-1"})
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]string
	if err := json.Unmarshal(payload, &m); err != nil {
		t.Fatal(err)
	}
	date := m["x-amz-date"]
	if len(date) != len("20261121T110000Z") {
		t.Fatalf("date %q in %s", date, payload)
	}
	scope := date[:8] + "/eu-west-1/kafka-cluster/aws4_request"
	for key, want := range map[string]string{
		"version": "2020_10_22", "host": "b-1.example.kafka.eu-west-1.amazonaws.com", "action": "kafka-cluster:Connect",
		"x-amz-algorithm": "AWS4-HMAC-SHA256", "x-amz-credential": "AKIDEXAMPLE/" + scope,
		"x-amz-security-token": "token/with+signs=", "x-amz-signedheaders": "host",
	} {
		if m[key] != want {
			t.Errorf("%s is %q, want %q", key, m[key], want)
		}
	}
	query := url.Values{
		"Action": {m["action"]}, "X-Amz-Algorithm": {m["x-amz-algorithm"]}, "X-Amz-Credential": {m["x-amz-credential"]},
		"X-Amz-Date": {date}, "X-Amz-Expires": {m["x-amz-expires"]}, "X-Amz-Security-Token": {m["x-amz-security-token"]},
		"X-Amz-SignedHeaders": {m["x-amz-signedheaders"]},
	}
	hash := func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
	mac := func(key []byte, s string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(s))
		return h.Sum(nil)
	}
	canonical := strings.Join([]string{"GET", "/", strings.ReplaceAll(query.Encode(), "+", "%20"), "host:" + m["host"] + "\n", "host", hash("")}, "\n")
	key := []byte("AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
	for _, part := range strings.Split(scope, "/") {
		key = mac(key, part)
	}
	want := hex.EncodeToString(mac(key, strings.Join([]string{"AWS4-HMAC-SHA256", date, scope, hash(canonical)}, "\n")))
	if m["x-amz-signature"] != want {
		t.Errorf("signature %s, want %s", m["x-amz-signature"], want)
	}
}

func TestIAMTakesTheRegionFromTheEnvironment(t *testing.T) {
	awsEnvironment(t, "AKIDEXAMPLE", "secret", "")
	if _, err := startIAM(SASL{}); !errors.Is(err, ErrConfiguration) || !strings.Contains(err.Error(), "--kafka.aws.region") {
		t.Errorf("no region: %v", err)
	}
	if err := (Security{TLS: TLS{Enable: true}, SASL: SASL{Mechanism: SASLAWSMSKIAM}}).Check(); !errors.Is(err, ErrConfiguration) {
		t.Errorf("no region: %v", err)
	}
	t.Setenv("AWS_REGION", "us-east-2")
	if payload, err := startIAM(SASL{}); err != nil || !strings.Contains(string(payload), "/us-east-2/kafka-cluster/") {
		t.Errorf("%s, %v", payload, err)
	}
}

func TestIAMWithoutCredentialsIsNoEndlessRetry(t *testing.T) {
	awsEnvironment(t, "", "", "")
	_, err := startIAM(SASL{Region: "eu-west-1"})
	// The network may mend it, so a running program tries on; Open ends within seconds.
	if err == nil || !isPassing(err) || classify(err) != classRetry {
		t.Errorf("%v", err)
	}
}
