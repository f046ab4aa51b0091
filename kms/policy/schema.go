package policy

import (
	"fmt"
	"strings"

	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// entityTypes is the head of the schema. What it says of the context is what
// Request.context makes.
const entityTypes = `// What access policies may speak of. Actions are those of Amazon S3.

// Groups, and who is in which, are in the entities that are put with the policies.
entity Group in [Group];
// A user is the principal of an access key. Tags are for what a group is too much for.
entity User in [Group] tags String;

// What is done to no bucket: listing all buckets. There is one, Service::"s3".
entity Service;
// owner is not there while the bucket is being made.
entity Bucket = { bucket: String, owner?: User };
// An object is in its bucket. Its id is BUCKET/KEY.
entity Object in [Bucket] = { bucket: String, key: String, owner?: User };

type Request = {
  source: ipaddr,     // of the connection, as the gateway sees it
  tls: Bool,          // the connection to the gateway is encrypted
  time: datetime,
  hour: Long,         // 0 to 23, UTC
  weekday: Long,      // 1 is Monday, 7 Sunday, UTC
  accessKey: String,  // id of the access key that signed
  presigned: Bool,    // signed in a URL or a form, by whom ever it was passed on to
  reason?: String,    // x-chatelaine-reason, which must be signed
  prefix?: String,    // of a list: what all names that it shows begin with
};

action "read", "write", "admin";
`

// Schema is what policies may speak of, in Cedar's own language.
func Schema() string {
	var b strings.Builder
	b.WriteString(entityTypes)
	for _, a := range Actions() {
		groups := make([]string, 0, len(a.Groups))
		for _, g := range a.Groups {
			groups = append(groups, fmt.Sprintf("%q", g))
		}
		fmt.Fprintf(&b, "action %q in [%s] appliesTo { principal: [User], resource: [%s], context: Request };\n",
			a.Name, strings.Join(groups, ", "), a.On)
	}
	return b.String()
}

func newValidator() (*validate.Validator, error) {
	var s schema.Schema
	if err := s.UnmarshalCedar([]byte(Schema())); err != nil {
		return nil, fmt.Errorf("policy: reading the schema: %w", err)
	}
	resolved, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("policy: resolving the schema: %w", err)
	}
	return validate.New(resolved), nil
}
