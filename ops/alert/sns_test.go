package alert

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	localmoto "github.com/drover-io/drover/tools/moto"
)

func TestASubscriberOfTheTopicGetsTheAlert(t *testing.T) {
	if testing.Short() {
		t.Skip("starts moto")
	}
	r := newReceiver(t)
	moto := localmoto.ForTest(t, localmoto.Options{})
	login := credentials.NewStaticCredentialsProvider("any", "any", "")
	admin := sns.New(sns.Options{BaseEndpoint: aws.String(moto.URL()), Region: "eu-west-1", Credentials: login})
	for _, name := range []string{"alerts", "alerts.fifo"} {
		in := &sns.CreateTopicInput{Name: &name}
		if strings.HasSuffix(name, ".fifo") {
			in.Attributes = map[string]string{"FifoTopic": "true"}
		}
		topic, err := admin.CreateTopic(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Subscribe(t.Context(), &sns.SubscribeInput{TopicArn: topic.TopicArn, Protocol: aws.String("http"), Endpoint: &r.URL,
			Attributes: map[string]string{"FilterPolicy": `{"severity":["warning"],"cluster":["main"],"status":["firing"],"name":["DroverSnapshotHeadroomLow"]}`}}); err != nil {
			t.Fatal(err)
		}
		to, err := Parse(t.Context(), "sns:"+*topic.TopicArn, ParseOptions{Endpoint: moto.URL(), Credentials: login})
		if err != nil {
			t.Fatal(err)
		}
		a := example()
		a.Summary = strings.Repeat("a long story, with ü and\na second line; ", 10)
		before := len(r.all())
		if err := to.Fire(t.Context(), a); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		until(t, "the subscriber was told", func() bool { return len(r.all()) > before })
		var got struct {
			Subject, Message string
		}
		body := r.all()[before].body
		if err := json.Unmarshal(body, &got); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if len(got.Subject) >= 100 || !strings.HasPrefix(got.Subject, "WARNING: DroverSnapshotHeadroomLow: cluster main: a long story, with ? and") {
			t.Errorf("%s: got %s", name, body)
		}
		var m Message
		if err := json.Unmarshal([]byte(got.Message), &m); err != nil || m.Name != a.Name || m.Status != "firing" {
			t.Errorf("%s: message %q: %v", name, got.Message, err)
		}
		if err := to.Resolve(t.Context(), a); err != nil { // which the subscriber's filter keeps from it
			t.Error(err)
		}
		a.Value++ // or a FIFO topic takes it for the first
		if err := to.Fire(t.Context(), a); err != nil {
			t.Error(err)
		}
		until(t, "the subscriber was told again", func() bool { return len(r.all()) > before+1 })
		if last := r.all()[len(r.all())-1].body; len(r.all()) != before+2 || strings.Contains(string(last), "RESOLVED") {
			t.Errorf("the filter let %s through", last)
		}
	}
	gone, err := Parse(t.Context(), "sns:arn:aws:sns:eu-west-1:123456789012:gone", ParseOptions{Endpoint: moto.URL(), Credentials: login})
	if err != nil {
		t.Fatal(err)
	}
	if err := gone.Fire(t.Context(), example()); !errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "\n") {
		t.Errorf("no such topic: %v", err)
	}
	moto.Close()
	to, err := Parse(t.Context(), "sns:arn:aws:sns:eu-west-1:123456789012:alerts", ParseOptions{Endpoint: moto.URL(), Credentials: login})
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Fire(t.Context(), example()); err == nil || errors.Is(err, ErrRefused) || strings.Contains(err.Error(), "\n") {
		t.Errorf("no answer: %v", err)
	}
}
