package s3store_test

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"chatelaine/backends"
)

func TestLifecycleRulesAsTheyAreSent(t *testing.T) {
	ok := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	date := time.Date(2030, 1, 2, 0, 0, 0, 0, time.FixedZone("", 0))
	tags := backends.Tags{"k": "v"}
	for name, tt := range map[string]struct {
		rule backends.LifecycleRule
		want []string
	}{
		"all keys": {backends.LifecycleRule{NoncurrentDays: 2}, []string{
			"<Filter><Prefix></Prefix></Filter>", "<NoncurrentVersionExpiration><NoncurrentDays>2</NoncurrentDays></NoncurrentVersionExpiration>", "<Status>Enabled</Status>",
		}},
		"a prefix":    {backends.LifecycleRule{Prefix: "a", ExpireDays: 1}, []string{"<Filter><Prefix>a</Prefix></Filter>", "<Expiration><Days>1</Days></Expiration>"}},
		"a tag":       {backends.LifecycleRule{Tags: tags, ExpireDate: date}, []string{"<Filter><Tag><Key>k</Key><Value>v</Value></Tag></Filter>", "<Expiration><Date>2030-01-02T00:00:00Z</Date></Expiration>"}},
		"a size":      {backends.LifecycleRule{AtLeast: 10, ExpireDays: 1}, []string{"<Filter><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan></Filter>"}},
		"more than 0": {backends.LifecycleRule{AtLeast: 1, ExpireDays: 1}, []string{"<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>"}},
		"two sizes":   {backends.LifecycleRule{AtLeast: 10, Below: 20, ExpireDays: 1}, []string{"<Filter><And>", "<ObjectSizeGreaterThan>9<", "<ObjectSizeLessThan>20<"}},
		"tag, prefix": {backends.LifecycleRule{Prefix: "a", Tags: tags, ExpireDays: 1}, []string{"<Filter><And>", "<Prefix>a<", "<Tag><Key>k<"}},
		"markers":     {backends.LifecycleRule{ExpireMarkers: true}, []string{"<Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"}},
		"newest kept": {backends.LifecycleRule{NoncurrentDays: 2, NoncurrentKeep: 3}, []string{"<NewerNoncurrentVersions>3<"}},
		"both": {backends.LifecycleRule{Prefix: "p", ExpireDays: 1, AbortDays: 4}, []string{
			"<Expiration><Days>1</Days></Expiration><Filter><Prefix>p</Prefix></Filter><ID>r</ID>",
			"</AbortIncompleteMultipartUpload><Filter><Prefix>p</Prefix></Filter><ID>chatelaine-abort-0</ID>",
		}},
		"uploads": {backends.LifecycleRule{AbortDays: 4}, []string{"<AbortIncompleteMultipartUpload><DaysAfterInitiation>4</DaysAfterInitiation></AbortIncompleteMultipartUpload>"}},
	} {
		rec := &recorder{script: []http.HandlerFunc{ok}}
		tt.rule.ID = "r"
		if err := scripted(t, rec.serve).SetLifecycle(t.Context(), "bucket", []backends.LifecycleRule{tt.rule}); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body := string(rec.bodies[len(rec.bodies)-1])
		for _, want := range append(tt.want, "<ID>r</ID>") {
			if !strings.Contains(body, want) {
				t.Errorf("%s: got %s, want %s in it", name, body, want)
			}
		}
		if strings.Count(body, "<Expiration>") > 1 || strings.Contains(body, "<Date>0001") {
			t.Errorf("%s: got %s", name, body)
		}
	}
	rec := &recorder{script: []http.HandlerFunc{ok}}
	if err := scripted(t, rec.serve).SetLifecycle(t.Context(), "bucket", nil); err != nil || rec.requests[len(rec.requests)-1].Method != http.MethodDelete {
		t.Errorf("no rules: got %v and %v, want a DELETE", rec.requests, err)
	}
}

func TestErrorsOfLifecycleRules(t *testing.T) {
	rules := []backends.LifecycleRule{{ID: "r", Prefix: "a", ExpireDays: 1}}
	for code, tt := range map[string]struct {
		status int
		want   error
	}{
		"InvalidArgument": {400, backends.ErrUnsupported}, "NotImplemented": {501, backends.ErrUnsupported},
		"NoSuchBucket": {404, backends.ErrBucketNotFound}, "AccessDenied": {403, backends.ErrDenied}, "InternalError": {500, backends.ErrUnavailable},
	} {
		rec := &recorder{script: []http.HandlerFunc{success, failure(tt.status, code, nil)}}
		if err := scripted(t, rec.serve).SetLifecycle(t.Context(), "bucket", rules); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", code, err, tt.want)
		}
	}
	if err := scripted(t, success).SetLifecycle(t.Context(), "..", rules); !errors.Is(err, backends.ErrBucketNotFound) && !errors.Is(err, backends.ErrInvalidName) {
		t.Errorf("a bucket that cannot be: got %v", err)
	}
}

func TestMinIOTakesLifecycleRules(t *testing.T) {
	server := minio.MinIO(t)
	s := open(t, configOf(server))
	const bucket = "lifecycle-rules"
	if err := s.CreateBucket(t.Context(), bucket); err != nil {
		t.Fatal(err)
	}
	direct := s3.New(s3.Options{
		BaseEndpoint: &server.Endpoint, Region: server.Region, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(server.AccessKeyID, server.SecretAccessKey, ""),
	})
	rules := func() (got []string) {
		t.Helper()
		out, err := direct.GetBucketLifecycleConfiguration(t.Context(), &s3.GetBucketLifecycleConfigurationInput{Bucket: new(string(bucket))})
		if err != nil {
			return []string{err.Error()}
		}
		for _, r := range out.Rules {
			got = append(got, fmt.Sprint(*r.ID, r.Status))
		}
		slices.Sort(got)
		return got
	}
	set := []backends.LifecycleRule{
		{ID: "a", Prefix: "logs/", ExpireDays: 3, AtLeast: 289, Below: 1000},
		{ID: "b", NoncurrentDays: 1},
		{ID: "c", Tags: backends.Tags{"k": "v"}, ExpireDays: 1},
		{ID: "d", Prefix: ".chatelaine/uploads/", ExpireDays: 4, NoncurrentDays: 1},
		{ID: "e", Prefix: ".chatelaine/uploads/", ExpireMarkers: true},
	}
	if err := s.SetLifecycle(t.Context(), bucket, set); err != nil {
		t.Fatal(err)
	}
	if got, want := rules(), []string{"aEnabled", "bEnabled", "cEnabled", "dEnabled", "eEnabled"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, r := range []backends.LifecycleRule{{ID: "f", AbortDays: 3}, {ID: "f", AbortDays: 3, NoncurrentDays: 1}} {
		if err := s.SetLifecycle(t.Context(), bucket, []backends.LifecycleRule{r}); !errors.Is(err, backends.ErrUnsupported) || len(rules()) != 5 {
			t.Errorf("%+v, which MinIO does not do: got %v and %q, want %v and the rules of before", r, err, rules(), backends.ErrUnsupported)
		}
	}
	if err := s.SetLifecycle(t.Context(), bucket, nil); err != nil {
		t.Fatal(err)
	}
	if got := rules(); len(got) != 1 || !strings.Contains(got[0], "NoSuchLifecycleConfiguration") {
		t.Errorf("after none: got %q", got)
	}
	if err := s.SetLifecycle(t.Context(), "not-there", set); !errors.Is(err, backends.ErrBucketNotFound) {
		t.Errorf("no bucket: got %v, want %v", err, backends.ErrBucketNotFound)
	}
}
