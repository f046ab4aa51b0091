package s3api

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"chatelaine/backends"
	"chatelaine/gateway/keys"
	"chatelaine/gateway/objects"
)

// ruled is a Service whose backend carries out rules.
type ruled struct {
	Service
	rules []backends.LifecycleRule
	err   error
}

func (r *ruled) CarriesLifecycle(keys.Bucket) error { return nil }

func (r *ruled) SetLifecycle(_ context.Context, _ keys.Bucket, rules []backends.LifecycleRule) error {
	r.rules = rules
	return r.err
}

func newRuledWorld(t testing.TB) (*world, *ruled) {
	t.Helper()
	r := &ruled{}
	w := newWorld(t, func(c *Config) { r.Service, c.Service = c.Service, r })
	return w, r
}

func (w *world) putRules(rules ...string) answer {
	body := "<LifecycleConfiguration>" + strings.Join(rules, "") + "</LifecycleConfiguration>"
	return w.send(sent{method: "PUT", path: "/bucket?lifecycle", body: body})
}

// rule is one that is enabled and has an action where none is given.
func rule(parts string) string {
	if !strings.Contains(parts, "<Status>") {
		parts += "<Status>Enabled</Status>"
	}
	for _, action := range []string{"<Expiration>", "<NoncurrentVersionExpiration>", "<Abort"} {
		if strings.Contains(parts, action) {
			return "<Rule>" + parts + "</Rule>"
		}
	}
	return "<Rule>" + parts + "<Expiration><Days>3</Days></Expiration></Rule>"
}

func TestLifecycleRulesAreUnderstood(t *testing.T) {
	w, r := newRuledWorld(t)
	for name, tt := range map[string]struct {
		text string
		want backends.LifecycleRule
	}{
		"prefix":        {"<Prefix>a b</Prefix>", backends.LifecycleRule{Prefix: "a b", ExpireDays: 3}},
		"empty filter":  {"<Filter/>", backends.LifecycleRule{ExpireDays: 3}},
		"filter":        {"<Filter><Prefix>a</Prefix></Filter>", backends.LifecycleRule{Prefix: "a", ExpireDays: 3}},
		"larger than 0": {"<Filter><ObjectSizeGreaterThan>0</ObjectSizeGreaterThan></Filter>", backends.LifecycleRule{AtLeast: 1, ExpireDays: 3}},
		"all conditions": {
			"<Filter><And><Prefix>a</Prefix><Tag><Key>k</Key><Value>v</Value></Tag><Tag><Key>l</Key><Value></Value></Tag>" +
				"<ObjectSizeGreaterThan>9</ObjectSizeGreaterThan><ObjectSizeLessThan>11</ObjectSizeLessThan></And></Filter>",
			backends.LifecycleRule{Prefix: "a", Tags: backends.Tags{"k": "v", "l": ""}, AtLeast: 10, Below: 11, ExpireDays: 3},
		},
		"date": {
			"<Filter/><Expiration><Date>2030-01-02T00:00:00.000Z</Date></Expiration>",
			backends.LifecycleRule{ExpireDate: time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)},
		},
		"markers": {"<Filter/><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>", backends.LifecycleRule{ExpireMarkers: true}},
		"older versions": {
			"<Filter/><NoncurrentVersionExpiration><NoncurrentDays>4</NoncurrentDays><NewerNoncurrentVersions>5</NewerNoncurrentVersions></NoncurrentVersionExpiration>",
			backends.LifecycleRule{NoncurrentDays: 4, NoncurrentKeep: 5},
		},
		"uploads": {"<Filter/><AbortIncompleteMultipartUpload><DaysAfterInitiation>6</DaysAfterInitiation></AbortIncompleteMultipartUpload>", backends.LifecycleRule{AbortDays: 6}},
	} {
		tt.want.ID = "my rule"
		w.wants(w.putRules(rule("<ID>my rule</ID>"+tt.text)), 200, "")
		if want := []backends.LifecycleRule{tt.want}; !reflect.DeepEqual(r.rules, want) {
			t.Errorf("%s: got %+v, want %+v", name, r.rules, want)
		}
		got := string(w.send(sent{method: "GET", path: "/bucket?lifecycle"}).body)
		want := `<LifecycleConfiguration xmlns="` + namespace + `">` + rule("<ID>my rule</ID>"+tt.text) + "</LifecycleConfiguration>"
		if want = strings.ReplaceAll(want, "<Filter/>", "<Filter></Filter>"); !strings.HasSuffix(got, want) {
			t.Errorf("%s: got back %s, want %s", name, got, want)
		}
	}
}

func TestDisabledAndNamelessLifecycleRules(t *testing.T) {
	w, r := newRuledWorld(t)
	w.wants(w.send(sent{method: "GET", path: "/bucket?lifecycle"}), 404, "NoSuchLifecycleConfiguration")
	w.wants(w.putRules(rule("<ID>off</ID><Prefix>a</Prefix><Status>Disabled</Status>"), rule("<Prefix>b</Prefix>"), rule("<ID/><Prefix>c</Prefix>")), 200, "")
	if len(r.rules) != 2 || r.rules[0].ID == "" || r.rules[0].ID == r.rules[1].ID {
		t.Errorf("got %+v, want the two that are enabled, with names", r.rules)
	}
	text := string(w.send(sent{method: "GET", path: "/bucket?lifecycle"}).body)
	for _, id := range []string{"off", r.rules[0].ID, r.rules[1].ID} {
		if !strings.Contains(text, "<ID>"+id+"</ID>") {
			t.Errorf("got %s, want %q in it", text, id)
		}
	}
	w.wants(w.send(sent{method: "DELETE", path: "/bucket?lifecycle"}), 204, "")
	if len(r.rules) != 0 {
		t.Errorf("after DELETE: got %+v", r.rules)
	}
	w.wants(w.send(sent{method: "GET", path: "/bucket?lifecycle"}), 404, "NoSuchLifecycleConfiguration")
}

func TestLifecycleRulesAreJudgedAsS3Does(t *testing.T) {
	w, r := newRuledWorld(t)
	filter := func(conditions string) string { return rule("<Filter>" + conditions + "</Filter>") }
	expires := func(how string) string { return rule("<Filter/><Expiration>" + how + "</Expiration>") }
	const tag = "<Tag><Key>k</Key><Value>v</Value></Tag>"
	for text, code := range map[string]string{
		"": "MalformedXML", "<Other/>": "MalformedXML", strings.Repeat(rule("<Prefix/>"), 1001): "MalformedXML",
		rule("<Filter/><Filter/>"): "MalformedXML", rule("<Prefix/><Filter/>"): "MalformedXML", rule(""): "MalformedXML",
		rule("<ID>a</ID><ID/><Filter/>"): "MalformedXML", rule("<ID><b/></ID><Filter/>"): "MalformedXML",
		rule("<Filter/><Unknown/>"):                                        "MalformedXML",
		rule("<Filter/><Status>enabled</Status>"):                          "MalformedXML",
		rule("<Filter/><Status>Enabled</Status><Status>Disabled</Status>"): "MalformedXML",
		rule("<ID>" + strings.Repeat("i", 256) + "</ID><Filter/>"):         "InvalidArgument",
		rule("<ID>i</ID><Filter/>") + rule("<ID>i</ID><Prefix/>"):          "InvalidArgument",
		"<Rule><Filter/><Status>Enabled</Status></Rule>":                   "InvalidRequest",
		rule("<Prefix>" + strings.Repeat("p", 1025) + "</Prefix>"):         "InvalidRequest",
		filter("<Prefix/>" + tag):                                          "MalformedXML",
		filter("<And><Prefix/></And>"):                                     "MalformedXML",
		filter("<And/>"):                                                   "MalformedXML",
		filter("<Not><Prefix>a</Prefix></Not>"):                            "MalformedXML",
		filter("<Prefix><b/></Prefix>"):                                    "MalformedXML",
		filter("<And><Prefix/><Prefix/></And>"):                            "MalformedXML",
		filter("<And>" + tag + tag + "</And>"):                             "InvalidRequest",
		filter("<Tag><Key>k</Key></Tag>"):                                  "MalformedXML",
		filter("<Tag><Key/><Value/></Tag>"):                                "InvalidTag",
		filter("<ObjectSizeGreaterThan>-1</ObjectSizeGreaterThan>"):        "MalformedXML",
		filter("<ObjectSizeGreaterThan>x</ObjectSizeGreaterThan>"):         "MalformedXML",
		filter("<ObjectSizeLessThan>0</ObjectSizeLessThan>"):               "MalformedXML",
		filter("<And><ObjectSizeGreaterThan>9</ObjectSizeGreaterThan><ObjectSizeLessThan>9</ObjectSizeLessThan></And>"): "InvalidRequest",
		expires(""): "MalformedXML", expires("<Days>0</Days>"): "InvalidArgument", expires("<Days>-1</Days>"): "InvalidArgument",
		expires("<Days>1</Days><Date>2030-01-02T00:00:00Z</Date>"):          "MalformedXML",
		expires("<Days>99999999999</Days>"):                                 "MalformedXML",
		expires("<Date>2030-01-02T01:00:00Z</Date>"):                        "InvalidArgument",
		expires("<Date>soon</Date>"):                                        "MalformedXML",
		expires("<ExpiredObjectDeleteMarker>1</ExpiredObjectDeleteMarker>"): "MalformedXML",
		filter(tag) + rule("<Filter>"+tag+"</Filter><Expiration><ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration>"):                                               "InvalidRequest",
		rule("<Filter/><NoncurrentVersionExpiration><NewerNoncurrentVersions>1</NewerNoncurrentVersions></NoncurrentVersionExpiration>"):                                                 "MalformedXML",
		rule("<Filter/><NoncurrentVersionExpiration><NoncurrentDays>0</NoncurrentDays></NoncurrentVersionExpiration>"):                                                                   "InvalidArgument",
		rule("<Filter/><NoncurrentVersionExpiration><NoncurrentDays>1</NoncurrentDays><NewerNoncurrentVersions>101</NewerNoncurrentVersions></NoncurrentVersionExpiration>"):             "InvalidArgument",
		rule("<Filter>" + tag + "</Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"):                                "InvalidRequest",
		rule("<Filter><ObjectSizeLessThan>5</ObjectSizeLessThan></Filter><AbortIncompleteMultipartUpload><DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload>"): "InvalidRequest",
		rule("<Filter/><AbortIncompleteMultipartUpload/>"): "MalformedXML",
	} {
		t.Run(fmt.Sprintf("%.150s", text), func(t *testing.T) {
			r.rules = nil
			a := w.putRules(text)
			if !strings.Contains(string(a.body), "<Code>"+code+"</Code>") || a.status != 400 || r.rules != nil {
				t.Errorf("got %d %s and rules %v, want %s", a.status, a.body, r.rules, code)
			}
		})
	}
	for _, text := range []string{
		rule("<Filter/><Transition><Days>1</Days><StorageClass>GLACIER</StorageClass></Transition>"),
		rule("<Filter/><NoncurrentVersionTransition><NoncurrentDays>1</NoncurrentDays><StorageClass>GLACIER</StorageClass></NoncurrentVersionTransition>"),
	} {
		w.wants(w.putRules(text), 501, "NotImplemented")
	}
	w.wants(w.send(sent{method: "PUT", path: "/bucket?lifecycle"}), 400, "MissingRequestBodyError")
	long := rule("<Prefix>" + strings.Repeat("p", 1000) + "</Prefix>")
	w.wants(w.putRules(strings.Repeat(long, 300)), 400, "MaxMessageLengthExceeded")
	w.wants(w.send(sent{method: "GET", path: "/bucket?lifecycle"}), 404, "NoSuchLifecycleConfiguration")
}

func TestLifecycleRulesThatTheBackendRefusesAreNotKept(t *testing.T) {
	w, r := newRuledWorld(t)
	for err, status := range map[error]int{objects.ErrRuleScope: 501, objects.ErrUnsupported: 501, backends.ErrUnavailable: 503} {
		r.err = err
		if a := w.putRules(rule("<Prefix>a</Prefix>")); a.status != status {
			t.Errorf("%v: got %d, want %d", err, a.status, status)
		}
	}
	w.wants(w.send(sent{method: "GET", path: "/bucket?lifecycle"}), 404, "NoSuchLifecycleConfiguration")
	r.err = objects.ErrUnsupported
	w.wants(w.send(sent{method: "DELETE", path: "/bucket?lifecycle"}), 501, "NotImplemented")
	r.err = backends.ErrUnavailable
	w.wants(w.send(sent{method: "DELETE", path: "/bucket?lifecycle"}), 503, "SlowDown")
}

func TestLifecycleIsNotImplementedWhereTheBackendCarriesNothingOut(t *testing.T) {
	w := newWorld(t) // a memory store
	w.wants(w.putRules(rule("<Prefix>a</Prefix>")), 501, "NotImplemented")
	for _, method := range []string{"GET", "DELETE"} {
		w.wants(w.send(sent{method: method, path: "/bucket?lifecycle"}), 501, "NotImplemented")
	}
}

// FuzzLifecycle: what is accepted says the same when it is read again.
func FuzzLifecycle(f *testing.F) {
	f.Add("<LifecycleConfiguration>" + rule("<Filter><And><Prefix>a</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter>") + "</LifecycleConfiguration>")
	f.Add("<LifecycleConfiguration>" + rule("<ID>&lt;&#10;</ID><Prefix>a</Prefix>") + rule("<Prefix/>") + "</LifecycleConfiguration>")
	f.Fuzz(func(t *testing.T, text string) {
		var document, again node
		if decodeXML([]byte(text), "LifecycleConfiguration", &document) != nil {
			return
		}
		rules, err := lifecycleRules(&document)
		if err != nil {
			return
		}
		kept, err := marshal(document.root())
		if err != nil {
			t.Fatal(err)
		}
		if err := decodeXML(kept, "LifecycleConfiguration", &again); err != nil {
			t.Fatalf("%s: %v", kept, err)
		}
		if got, err := lifecycleRules(&again); err != nil || !reflect.DeepEqual(got, rules) {
			t.Errorf("%s: got %+v and %v, want %+v", kept, got, err, rules)
		}
	})
}
