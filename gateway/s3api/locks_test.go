package s3api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// locked makes a bucket of the name "locked" with Object Lock.
func (w *world) locked() *world {
	w.t.Helper()
	w.wants(w.send(sent{method: "PUT", path: "/locked", header: []string{"X-Amz-Bucket-Object-Lock-Enabled: true"}}), 200, "")
	return w
}

func inAnHour() string { return time.Now().Add(time.Hour).UTC().Format(isoTime) }

func retention(mode, until string) string {
	return "<Retention><Mode>" + mode + "</Mode><RetainUntilDate>" + until + "</RetainUntilDate></Retention>"
}

func TestTheLockOfABucket(t *testing.T) {
	w := newWorld(t).locked()
	c := w.s3()
	w.wants(w.send(sent{method: "GET", path: "/bucket?object-lock"}), 404, "ObjectLockConfigurationNotFoundError")
	config := func(inner string) string { return "<ObjectLockConfiguration>" + inner + "</ObjectLockConfiguration>" }
	rule := func(inner string) string {
		return config("<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>" + inner + "</DefaultRetention></Rule>")
	}
	for _, tt := range []struct {
		name, path, body string
		status           int
		code             string
	}{
		{"a bucket without versions", "/bucket", config("<ObjectLockEnabled>Enabled</ObjectLockEnabled>"), 409, "InvalidBucketState"},
		{"nothing", "/locked", "", 400, "MissingRequestBodyError"},
		{"not enabled", "/locked", config("<ObjectLockEnabled>x</ObjectLockEnabled>"), 400, "MalformedXML"},
		{"an empty rule", "/locked", config("<ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule/>"), 400, "MalformedXML"},
		{"an unknown mode", "/locked", rule("<Mode>x</Mode><Days>1</Days>"), 400, "MalformedXML"},
		{"no period", "/locked", rule("<Mode>GOVERNANCE</Mode>"), 400, "MalformedXML"},
		{"two periods", "/locked", rule("<Mode>GOVERNANCE</Mode><Days>1</Days><Years>1</Years>"), 400, "MalformedXML"},
		{"no days", "/locked", rule("<Mode>GOVERNANCE</Mode><Days>0</Days>"), 400, "InvalidArgument"},
		{"too many days", "/locked", rule("<Mode>GOVERNANCE</Mode><Days>36501</Days>"), 400, "InvalidArgument"},
		{"less than no years", "/locked", rule("<Mode>GOVERNANCE</Mode><Years>-5</Years>"), 400, "InvalidArgument"},
		{"too many years", "/locked", rule("<Mode>GOVERNANCE</Mode><Years>101</Years>"), 400, "InvalidArgument"},
		{"a rule", "/locked", rule("<Mode>GOVERNANCE</Mode><Days>2</Days>"), 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w.wants(w.send(sent{method: "PUT", path: tt.path + "?object-lock", body: tt.body}), tt.status, tt.code)
		})
	}
	got, err := c.GetObjectLockConfiguration(t.Context(), &s3.GetObjectLockConfigurationInput{Bucket: aws.String("locked")})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "days", aws.ToInt32(got.ObjectLockConfiguration.Rule.DefaultRetention.Days), int32(2))
	w.wants(w.send(sent{method: "PUT", path: "/locked/k", body: "v"}), 200, "")
	head := w.send(sent{method: "HEAD", path: "/locked/k"})
	until, err := time.Parse(time.RFC3339, head.header.Get(lockUntil))
	if err != nil || time.Until(until) < 47*time.Hour || head.header.Get(lockMode) != "GOVERNANCE" {
		t.Errorf("got %v, %v", head.header, err)
	}
	suspend := "<VersioningConfiguration><Status>Suspended</Status></VersioningConfiguration>"
	w.wants(w.send(sent{method: "PUT", path: "/locked?versioning", body: suspend}), 409, "InvalidBucketState")
}

func TestALockedVersionStays(t *testing.T) {
	w := newWorld(t).locked()
	until := inAnHour()
	for _, mode := range []string{"GOVERNANCE", "COMPLIANCE"} {
		a := w.send(sent{method: "PUT", path: "/locked/" + mode, body: "v", header: []string{
			lockMode + ": " + mode, lockUntil + ": " + until, lockHold + ": ON", "Content-Md5: " + md5of("v"),
		}})
		w.wants(a, 200, "")
		version := versionOf(a)
		path := "/locked/" + mode + "?versionId=" + version
		head := w.send(sent{method: "GET", path: path})
		equal(t, "lock", fmt.Sprint(head.header.Get(lockMode), head.header.Get(lockUntil), head.header.Get(lockHold)), mode+until+"ON")
		w.wants(w.send(sent{method: "DELETE", path: path}), 403, "AccessDenied")
		off := "<LegalHold><Status>OFF</Status></LegalHold>"
		w.wants(w.send(sent{method: "PUT", path: path + "&legal-hold", body: off}), 200, "")
		w.wants(w.send(sent{method: "DELETE", path: path}), 403, "AccessDenied")
		w.wants(w.send(sent{method: "DELETE", path: "/locked/" + mode}), 204, "") // a marker
		bypass := w.send(sent{method: "DELETE", path: path, header: []string{"X-Amz-Bypass-Governance-Retention: true"}})
		if mode == "GOVERNANCE" {
			w.wants(bypass, 204, "")
		} else {
			w.wants(bypass, 403, "AccessDenied")
		}
	}
	var asked bool
	for _, r := range w.access.asked {
		asked = asked || r.Action == "s3:BypassGovernanceRetention"
	}
	equal(t, "the right to bypass is asked for", asked, true)
}

func TestAHoldThatWasLiftedIsToldFromOneThatNeverWas(t *testing.T) {
	w := newWorld(t).locked()
	w.wants(w.send(sent{method: "PUT", path: "/locked/k", body: "v"}), 200, "")
	hold := sent{method: "GET", path: "/locked/k?legal-hold"}
	w.wants(w.send(hold), 404, "NoSuchObjectLockConfiguration")
	for _, status := range []string{"ON", "OFF"} {
		w.wants(w.send(sent{method: "PUT", path: "/locked/k?legal-hold", body: "<LegalHold><Status>" + status + "</Status></LegalHold>"}), 200, "")
		if body := string(w.send(hold).body); !strings.Contains(body, "<Status>"+status+"</Status>") {
			t.Errorf("got %s, want %s", body, status)
		}
		equal(t, "HEAD", w.send(sent{method: "HEAD", path: "/locked/k"}).header.Get(lockHold), status)
	}
}

func TestRetentionsAndHolds(t *testing.T) {
	w := newWorld(t).locked()
	w.put("k", "v")
	w.wants(w.send(sent{method: "PUT", path: "/locked/k", body: "v"}), 200, "")
	soon := time.Now().Add(time.Minute).UTC().Format(isoTime)
	bypass := []string{"X-Amz-Bypass-Governance-Retention: true"}
	for _, tt := range []struct {
		name string
		s    sent
		code string
	}{
		{"none yet", sent{method: "GET", path: "/locked/k?retention"}, "NoSuchObjectLockConfiguration"},
		{"no such key", sent{method: "PUT", path: "/locked/none?retention", body: retention("GOVERNANCE", inAnHour())}, "NoSuchKey"},
		{"no such version", sent{method: "GET", path: "/locked/k?retention&versionId=0123"}, "NoSuchVersion"},
		{"a bucket without", sent{method: "PUT", path: "/bucket/k?retention", body: retention("GOVERNANCE", inAnHour())}, "InvalidRequest"},
		{"reading in a bucket without", sent{method: "GET", path: "/bucket/k?retention"}, "InvalidRequest"},
		{"a hold in a bucket without", sent{method: "PUT", path: "/bucket/k?legal-hold", body: "<LegalHold><Status>ON</Status></LegalHold>"}, "InvalidRequest"},
		{"a hold read in a bucket without", sent{method: "GET", path: "/bucket/k?legal-hold"}, "InvalidRequest"},
		{"an unknown mode", sent{method: "PUT", path: "/locked/k?retention", body: retention("x", inAnHour())}, "MalformedXML"},
		{"no date", sent{method: "PUT", path: "/locked/k?retention", body: retention("GOVERNANCE", "x")}, "MalformedXML"},
		{"the past", sent{method: "PUT", path: "/locked/k?retention", body: retention("GOVERNANCE", "2000-01-01T00:00:00Z")}, "InvalidArgument"},
		{"an unknown hold", sent{method: "PUT", path: "/locked/k?legal-hold", body: "<LegalHold><Status>x</Status></LegalHold>"}, "MalformedXML"},
		{"no hold", sent{method: "PUT", path: "/locked/k?legal-hold"}, "MalformedXML"},
		{"set", sent{method: "PUT", path: "/locked/k?retention", body: retention("GOVERNANCE", inAnHour())}, ""},
		{"shortened", sent{method: "PUT", path: "/locked/k?retention", body: retention("GOVERNANCE", soon)}, "AccessDenied"},
		{"removed", sent{method: "PUT", path: "/locked/k?retention", body: "<Retention/>"}, "AccessDenied"},
		{"shortened with the right to", sent{method: "PUT", path: "/locked/k?retention", body: retention("GOVERNANCE", soon), header: bypass}, ""},
		{"removed with the right to", sent{method: "PUT", path: "/locked/k?retention", body: "<Retention/>", header: bypass}, ""},
		{"none again", sent{method: "GET", path: "/locked/k?retention"}, "NoSuchObjectLockConfiguration"},
		{"for good", sent{method: "PUT", path: "/locked/k?retention", body: retention("COMPLIANCE", inAnHour())}, ""},
		{"for good, shortened", sent{method: "PUT", path: "/locked/k?retention", body: retention("COMPLIANCE", soon), header: bypass}, "AccessDenied"},
		{"on hold", sent{method: "PUT", path: "/locked/k?legal-hold", body: "<LegalHold><Status>ON</Status></LegalHold>"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			equal(t, "code", w.send(tt.s).fault.Code, tt.code)
		})
	}
	c := w.s3()
	got, err := c.GetObjectRetention(t.Context(), &s3.GetObjectRetentionInput{Bucket: aws.String("locked"), Key: aws.String("k")})
	if err != nil || got.Retention.Mode != types.ObjectLockRetentionModeCompliance || time.Until(*got.Retention.RetainUntilDate) < 59*time.Minute {
		t.Errorf("got %+v and %v", got, err)
	}
	hold, err := c.GetObjectLegalHold(t.Context(), &s3.GetObjectLegalHoldInput{Bucket: aws.String("locked"), Key: aws.String("k")})
	if err != nil || hold.LegalHold.Status != types.ObjectLockLegalHoldStatusOn {
		t.Errorf("got %+v and %v", hold, err)
	}
}

func TestCopiesAndUploadsAreLocked(t *testing.T) {
	w := newWorld(t).locked()
	w.put("k", "v")
	header := []string{lockMode + ": GOVERNANCE", lockUntil + ": " + inAnHour()}
	w.wants(w.copy("/locked/copy", "bucket/k", header...), 200, "")
	create := string(w.send(sent{method: "POST", path: "/locked/big?uploads", header: header}).body)
	_, rest, _ := strings.Cut(create, "<UploadId>")
	id, _, _ := strings.Cut(rest, "<")
	part := w.send(sent{method: "PUT", path: "/locked/big?partNumber=1&uploadId=" + id, body: "x"})
	body := "<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>" + part.header.Get("Etag") + "</ETag></Part></CompleteMultipartUpload>"
	w.wants(w.send(sent{method: "POST", path: "/locked/big?uploadId=" + id, body: body}), 200, "")
	for _, key := range []string{"copy", "big"} {
		head := w.send(sent{method: "HEAD", path: "/locked/" + key})
		equal(t, key, head.header.Get(lockMode), "GOVERNANCE")
		w.wants(w.send(sent{method: "DELETE", path: "/locked/" + key + "?versionId=" + versionOf(head)}), 403, "AccessDenied")
	}
}
