package e2e

import (
	"crypto/rand"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	kmsconfig "chatelaine/kms/config"
	"chatelaine/kms/service"
	"chatelaine/kms/service/kmsv1"
	"chatelaine/test/e2e/harness"
)

// takesEffect is how long after `policy put` has returned a gateway may still decide by
// the old policies.
const takesEffect = time.Second

// kmsAddress is where the world's KMS listens, as its configuration says.
func (w *world) kmsAddress() string {
	w.t.Helper()
	c, err := kmsconfig.Load(filepath.Join(w.options.Data, "home", "run", "kms.yaml"))
	if err != nil {
		w.t.Fatal(err)
	}
	return c.Listen
}

// user makes a second user.
func (w *world) user(principal string) harness.Credentials {
	w.t.Helper()
	clients, err := service.Dial(service.DialConfig{Address: w.kmsAddress(), Logger: zap.NewNop()})
	if err != nil {
		w.t.Fatal(err)
	}
	defer clients.Close()
	user := harness.Credentials{AccessKeyID: "AK" + rand.Text()[:18], SecretAccessKey: marker("secret")}
	_, err = clients.Admin.EnsureAccessKey(w.t.Context(), &kmsv1.EnsureAccessKeyRequest{
		Id: user.AccessKeyID, Secret: user.SecretAccessKey, Principal: principal,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return user
}

// policy runs `chatelaine policy` and returns what it says.
func (w *world) policy(stdin string, args ...string) (string, error) {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), product, append([]string{"policy", "--kms", w.kmsAddress()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w *world) mustPolicy(stdin string, args ...string) {
	w.t.Helper()
	if out, err := w.policy(stdin, args...); err != nil {
		w.t.Fatalf("policy %v: %v\n%s", args, err, out)
	}
}

// status is what a user's request is answered with.
func status(t *testing.T, c *harness.Client, method, path string) int {
	t.Helper()
	return send(t, c, harness.Request{Method: method, Path: path}).status
}

func TestPoliciesDecideAboutTwoUsersAndChangesCountAtOnce(t *testing.T) {
	w := newWorld(t, cloud{})
	bucket, other := w.bucket(), w.bucket()
	w.put("/"+bucket+"/reports/a", []byte("data")).want(200)
	w.put("/"+bucket+"/private", []byte("data")).want(200)
	bob := rawClient(w.Endpoint, w.user("bob"))
	want := func(who *harness.Client, method, path string, want int) {
		t.Helper()
		if got := status(t, who, method, path); got != want {
			t.Errorf("%s %s: got %d, want %d", method, path, got, want)
		}
	}
	report, private := "/"+bucket+"/reports/a", "/"+bucket+"/private"
	want(bob, "GET", report, 403) // the default: it is not his bucket

	const owners = `permit (principal, action, resource) when { resource has owner && resource.owner == principal };
		permit (principal, action == Action::"s3:ListAllMyBuckets", resource);`
	shared := owners + `@id("reports") permit (principal == User::"bob", action in Action::"read", resource in Bucket::"` + bucket + `")
		when { resource is Object && resource.key like "reports/*" || context has prefix && context.prefix like "reports/*" };
		permit (principal == User::"bob", action == Action::"s3:GetBucketLocation", resource == Bucket::"` + bucket + `");`
	w.mustPolicy(shared, "put", "-", "--reason", "bob reads reports")
	effective(t, bob, report, http.StatusOK)
	want(bob, "GET", private, 403)
	want(bob, "PUT", report, 403)
	want(bob, "GET", "/"+bucket+"?list-type=2&prefix=reports/", 200)
	want(bob, "GET", "/"+bucket+"?list-type=2", 403)
	want(w.client(), "GET", private, 200)
	want(w.client(), "PUT", "/"+newName(), 403) // nobody may make buckets now
	list := string(send(t, bob, harness.Request{Method: http.MethodGet, Path: "/"}).want(200).body)
	if !strings.Contains(list, "<Name>"+bucket+"</Name>") || strings.Contains(list, other) {
		t.Errorf("bob is shown %s", list)
	}

	// What does not check changes nothing.
	if out, err := w.policy("permit (principal, action, resurce);", "put", "-"); err == nil || !strings.Contains(out, "nothing was changed") {
		t.Errorf("policies that do not parse: %v, %s", err, out)
	}
	want(bob, "GET", report, 200)

	if out, err := w.policy("", "test", "--principal", "bob", "--action", "s3:GetObject", "--bucket", bucket, "--object", "private", "--tls=false"); err == nil || !strings.Contains(out, "reports/*") {
		t.Errorf("policy test: %v, %s", err, out)
	}
	w.mustPolicy(owners, "put", "-", "--reason", "bob has left")
	effective(t, bob, report, http.StatusForbidden)
	for range 20 {
		want(bob, "GET", report, http.StatusForbidden)
	}
	w.decidedBy("bob", "reports")
}

// effective measures until a change of policies counts: until a user's GET is answered
// as it should be.
func effective(t *testing.T, user *harness.Client, path string, want int) {
	t.Helper()
	began := time.Now()
	for status(t, user, "GET", path) != want {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("GET %s is not answered with %d 20 s after the policies were put", path, want)
		}
	}
	took := time.Since(began)
	t.Logf("the change counted %v after the command had returned", took.Round(time.Millisecond))
	if took > takesEffect {
		t.Errorf("it took %v, want at most %v", took, takesEffect)
	}
}

// decidedBy looks for a decision about a principal, determined by a policy, in the log.
func (w *world) decidedBy(principal, policy string) {
	w.t.Helper()
	log, err := os.ReadFile(filepath.Join(w.options.Data, "home", "access.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, `"policies":["`+policy+`"]`) && strings.Contains(line, `"principal":"`+principal+`"`) {
			return
		}
	}
	w.t.Errorf("the log of decisions has none about %q by policy %q", principal, policy)
}
