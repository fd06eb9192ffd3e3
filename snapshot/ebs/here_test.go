package ebs

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/drover-io/drover/snapshot"
)

func TestAHostLearnsWhichInstanceItIs(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path { // IMDSv2: a token first
		case "/latest/api/token":
			w.Header().Set("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", "60")
			io.WriteString(w, "token")
		case "/latest/dynamic/instance-identity/document":
			if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "token" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			io.WriteString(w, `{"instanceId":"i-0123","availabilityZone":"eu-west-1b","region":"eu-west-1"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(service.Close)
	t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", service.URL)
	if instance, zone, region, err := Here(t.Context()); instance != "i-0123" || zone != "eu-west-1b" || region != "eu-west-1" || err != nil {
		t.Errorf("%s, %s, %s, %v", instance, zone, region, err)
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	if _, _, _, err := Here(t.Context()); !errors.Is(err, snapshot.ErrUsage) {
		t.Errorf("elsewhere: %v", err)
	}
}
