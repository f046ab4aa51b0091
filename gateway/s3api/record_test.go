package s3api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"chatelaine/gateway/access"
	"chatelaine/gateway/keys/keystest"
)

func TestAccessIsAskedWithTheActionOfEachOperation(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v")
	for _, tt := range []struct{ method, path, action, key string }{
		{"GET", "/", "s3:ListAllMyBuckets", ""},
		{"PUT", "/other", "s3:CreateBucket", ""},
		{"HEAD", "/bucket", "s3:ListBucket", ""},
		{"GET", "/bucket", "s3:ListBucket", ""},
		{"GET", "/bucket?list-type=2", "s3:ListBucket", ""},
		{"GET", "/bucket?location", "s3:GetBucketLocation", ""},
		{"GET", "/bucket?uploads", "s3:ListBucketMultipartUploads", ""},
		{"PUT", "/bucket/k", "s3:PutObject", "k"},
		{"GET", "/bucket/k", "s3:GetObject", "k"},
		{"HEAD", "/bucket/k", "s3:GetObject", "k"},
		{"POST", "/bucket/k?uploads", "s3:PutObject", "k"},
		{"PUT", "/bucket/k?partNumber=1&uploadId=x", "s3:PutObject", "k"},
		{"POST", "/bucket/k?uploadId=x", "s3:PutObject", "k"},
		{"GET", "/bucket/k?uploadId=x", "s3:ListMultipartUploadParts", "k"},
		{"DELETE", "/bucket/k?uploadId=x", "s3:AbortMultipartUpload", "k"},
		{"DELETE", "/bucket/k", "s3:DeleteObject", "k"},
		{"DELETE", "/bucket", "s3:DeleteBucket", ""},
	} {
		a := w.send(sent{method: tt.method, path: tt.path})
		got := w.access.last()
		equal(t, tt.method+tt.path, got.Action+" "+got.Key, tt.action+" "+tt.key)
		if got.Principal != "ann" || got.AccessKey != annKey || !got.Source.IsLoopback() || got.RequestID != a.header.Get("X-Amz-Request-Id") {
			t.Errorf("%s %s: asked %+v", tt.method, tt.path, got)
		}
	}
}

// Each operation must be refused when access says so: nothing may slip past it.
func TestEveryOperationStopsWhereAccessIsDenied(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v")
	paths := map[level]string{levelService: "/", levelBucket: "/bucket", levelObject: "/bucket/k"}
	for _, fail := range []struct {
		err    error
		status int
	}{{access.ErrDenied, 403}, {access.ErrUnrecorded, 503}} {
		w.access.fail = fail.err
		for _, r := range routes() {
			var query []string
			for _, name := range r.need {
				query = append(query, name+"=2")
			}
			if r.open { // asks once the form has told who it is: see the tests of forms
				continue
			}
			s := sent{method: r.method, path: paths[r.level] + "?" + strings.Join(query, "&")}
			if r.given != "" {
				s.header = []string{r.given + ": bucket/k"}
			}
			if r.name == "DeleteObjects" {
				s.body = "<Delete><Object><Key>k</Key></Object></Delete>"
				s.header = []string{"Content-Md5: " + md5of(s.body)}
				if a := w.send(s); !strings.Contains(string(a.body), "<Error>") || strings.Contains(string(a.body), "<Deleted>") {
					t.Errorf("%s: %s", r.name, a.body)
				}
				continue
			}
			equal(t, r.name, w.send(s).status, fail.status)
		}
	}
	equal(t, "stored", strings.Join(w.stored(), " "), "k")
}

func TestOneLineIsLoggedForARequest(t *testing.T) {
	w := newWorld(t)
	w.put("k", "value")
	a := w.send(sent{method: "GET", path: "/bucket/k"})
	if n := w.logs.Len(); n != 2 {
		t.Fatalf("got %d lines, want 2", n)
	}
	put, get := w.logs.All()[0].ContextMap(), w.logs.All()[1].ContextMap()
	equal(t, "put", fmt.Sprintln(put["op"], put["bucket"], put["key"], put["status"], put["code"], put["bytes_in"], put["principal"]), "PutObject bucket k 200 OK 5 ann\n")
	equal(t, "get", fmt.Sprintln(get["op"], get["status"], get["bytes_out"], get["request_id"]), "GetObject 200 5 "+a.header.Get("X-Amz-Request-Id")+"\n")
	equal(t, "level", w.logs.All()[1].Level, zapcore.InfoLevel)
}

// No secret, signature or presigned query may reach a log, an error or an answer.
func TestSecretsStayOutOfLogsAndAnswers(t *testing.T) {
	w := newWorld(t)
	body := "plaintext-that-must-not-leak"
	var all strings.Builder
	for _, s := range []sent{
		{method: "PUT", path: "/bucket/k", body: body},
		{method: "PUT", path: "/bucket/k", body: body, secret: bobSecret, key: annKey},
		{method: "PUT", path: "/bucket/k", body: body, header: []string{"Content-Md5: " + md5of("x")}},
		{method: "GET", path: "/bucket/none?X-Amz-Signature=query-that-must-not-leak"},
		{method: "POST", path: "/bucket?delete", body: body, header: []string{"Content-Md5: " + md5of(body)}},
	} {
		a := w.send(s)
		fmt.Fprintln(&all, string(a.body), a.header)
	}
	for _, entry := range w.logs.All() {
		fmt.Fprintln(&all, entry.Message, entry.ContextMap())
	}
	fmt.Fprintf(&all, "%v %+v", w.handler.metrics, w.access.last())
	for _, secret := range []string{annSecret, bobSecret, "must-not-leak"} {
		if strings.Contains(all.String(), secret) {
			t.Errorf("%q has leaked: %s", secret, all.String())
		}
	}
}

func TestMetricsCountByOperationAndCode(t *testing.T) {
	w := newWorld(t)
	w.put("k", "value")
	w.send(sent{method: "GET", path: "/bucket/k"})
	w.send(sent{method: "GET", path: "/bucket/none"})
	w.send(sent{method: "GET", path: "/bucket?brand-new"})
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(w.handler); err != nil {
		t.Fatal(err)
	}
	got := gather(t, registry)
	for series, want := range map[string]float64{
		"chatelaine_s3_requests_total code=OK op=PutObject":           1,
		"chatelaine_s3_requests_total code=OK op=GetObject":           1,
		"chatelaine_s3_requests_total code=NoSuchKey op=GetObject":    1,
		"chatelaine_s3_requests_total code=NotImplemented op=Unknown": 1,
		"chatelaine_s3_received_bytes_total op=PutObject":             5,
		"chatelaine_s3_requests_in_flight":                            0,
		"chatelaine_s3_request_duration_seconds op=GetObject":         2,
	} {
		equal(t, series, got[series], want)
	}
	if got["chatelaine_s3_sent_bytes_total op=GetObject"] <= 5 {
		t.Errorf("sent bytes: got %v", got)
	}
}

// gather reads all series: values of counters and gauges, counts of histograms.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			series := f.GetName()
			for _, l := range m.GetLabel() {
				series += " " + l.GetName() + "=" + l.GetValue()
			}
			out[series] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

func TestNewSaysAllThatIsMissing(t *testing.T) {
	_, err := New(Config{Stall: -1})
	for _, name := range []string{"Service", "Keys", "Authorizer", "Region", "Logger", "stall"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %s in it", err, name)
		}
	}
	if _, err := New(Config{Service: &failing{}, Keys: keystest.New(), Authorizer: &owners{}, Region: region, Logger: zap.NewNop()}); err != nil {
		t.Error(err)
	}
}

func TestABucketIsSeenByItsOwnerOnly(t *testing.T) {
	w := newWorld(t)
	w.put("k", "v")
	for _, s := range []sent{
		{method: "GET", path: "/bucket/k"},
		{method: "HEAD", path: "/bucket"},
		{method: "GET", path: "/bucket"},
		{method: "DELETE", path: "/bucket/k"},
		{method: "DELETE", path: "/bucket"},
	} {
		s.key, s.secret = bobKey, bobSecret
		equal(t, s.method+s.path, w.send(s).status, http.StatusForbidden)
	}
	if a := w.send(sent{method: "GET", path: "/", key: bobKey, secret: bobSecret}); strings.Contains(string(a.body), "<Name>") {
		t.Errorf("bob sees %s", a.body)
	}
}
