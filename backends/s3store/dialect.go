package s3store

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Fact is what is known of a server: Yes, No, or nothing at all.
type Fact string

// Facts. The zero value is that nobody has told and nobody here has tried.
const (
	Unknown Fact = ""
	Yes     Fact = "yes"
	No      Fact = "no"
)

// String is "unknown" where nothing is known.
func (f Fact) String() string {
	if f == Unknown {
		return "unknown"
	}
	return string(f)
}

// MarshalText is String.
func (f Fact) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// Dialect is a row of the table of servers that speak S3. Of a condition, No means that
// the store refuses it here (ErrUnsupported), as the server would refuse or, worse,
// ignore it. Unknown conditions of PUT and Complete are sent, as most servers know
// them; unknown ones of DELETE and of a copy's destination are not, as most servers
// that do not know them ignore them and destroy. `chatelaine backend check` tells.
type Dialect struct {
	Name string `json:"name"`
	// Hosts are patterns of endpoints' host names. "*" stands for anything but a dot,
	// {region} likewise, and is the region; a pattern that begins with a dot is a
	// suffix. None: the row is chosen by name only.
	Hosts []string `json:"hosts,omitempty"`
	// Region is what requests are signed for where the host does not tell. Empty means
	// us-east-1.
	Region string `json:"region,omitempty"`
	// Addressing says how a bucket may be named: "path", "host", or "path, host". The
	// store uses path unless told otherwise (path-style=false), on AWS by region host.
	Addressing string `json:"addressing"`
	// Checksum is what bodies carry, unless the configuration says something else.
	Checksum Checksum `json:"checksum"`
	// IfNoneMatch and IfMatch are of PutObject, IfOnComplete is both on
	// CompleteMultipartUpload, IfOnDelete is If-Match on DeleteObject, IfOnCopy is both
	// on the destination of CopyObject.
	IfNoneMatch  Fact `json:"if_none_match"`
	IfMatch      Fact `json:"if_match"`
	IfOnComplete Fact `json:"if_on_complete"`
	IfOnDelete   Fact `json:"if_on_delete"`
	IfOnCopy     Fact `json:"if_on_copy"`
	// LeadingSlash: "/a" and "a" are two keys. PathKeys: keys are paths, so that "a//b"
	// or "a/../b" would be another key: such keys are refused.
	LeadingSlash Fact `json:"leading_slash"`
	PathKeys     Fact `json:"path_keys"`
	// ETag is the form of ETags: "md5" (of one body; "-N" follows for N parts), "other".
	// Empty: not known. Nothing here relies on it.
	ETag string `json:"etag,omitempty"`
	// MaxParts is the most parts of an upload. EqualParts: all parts but the last must
	// be of one size.
	MaxParts   int  `json:"max_parts"`
	EqualParts Fact `json:"equal_parts"`
	// Copies, Versions: No means that the store does not offer them, and with versions
	// neither tags nor locks nor lifecycle rules: the gateway then copies through itself,
	// and answers the others with NotImplemented.
	Copies   Fact `json:"copies"`
	Versions Fact `json:"versions"`
	// OwnConditions: conditions of reads are checked here on the answer, as the server's
	// 304 lacks what clients need, or its rules are not RFC 9110's.
	OwnConditions bool `json:"own_conditions,omitempty"`
	// CreatesAgain: CreateBucket of a bucket that is there succeeds, so it is looked for
	// first.
	CreatesAgain bool `json:"creates_again,omitempty"`
	// FoldersCollide: a write is refused as one to a folder when a delete beside it took its
	// folder away. It is tried again.
	FoldersCollide bool `json:"folders_collide,omitempty"`
	// EncodesUnasked: names in listings of uploads are encoded as asked, and the answer
	// does not say so.
	EncodesUnasked bool `json:"encodes_unasked,omitempty"`
	// Sources say where the facts are from.
	Sources []string `json:"sources"`
	// Note is what else an operator should know.
	Note string `json:"note,omitempty"`

	aws bool // not asked for what AWS does by itself, and told the checksum of uploads
}

// generic is the dialect of a server of which nothing is known.
const generic = "generic"

// DialectOf is the row that an endpoint of that name or host name has; name wins. An
// empty endpoint is AWS. An unknown name is an error; an unknown host has the row
// "generic". Region is what the host says, or the row's.
func DialectOf(name, endpoint string) (d Dialect, region string, err error) {
	host := hostOf(endpoint)
	if name != "" {
		d, ok := byName(name)
		if !ok {
			return Dialect{}, "", fmt.Errorf("dialect %q: want one of %s", name, strings.Join(dialectNames(), ", "))
		}
		_, region := d.matches(host)
		return d, region, nil
	}
	if endpoint == "" {
		d, _ = byName("aws")
		return d, "", nil
	}
	for _, d := range Dialects() {
		if ok, region := d.matches(host); ok {
			return d, region, nil
		}
	}
	d, _ = byName(generic)
	return d, "", nil
}

func hostOf(endpoint string) string {
	u, err := url.Parse(endpoint)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
}

func byName(name string) (Dialect, bool) {
	all := Dialects()
	i := slices.IndexFunc(all, func(d Dialect) bool { return d.Name == name })
	if i < 0 {
		return Dialect{}, false
	}
	return all[i], true
}

func dialectNames() (names []string) {
	for _, d := range Dialects() {
		names = append(names, d.Name)
	}
	return names
}

// matches also tells the region: that of the host, else the row's.
func (d Dialect) matches(host string) (ok bool, region string) {
	for _, pattern := range d.Hosts {
		if ok, region := matchHost(pattern, host); ok {
			if region == "" {
				region = d.Region
			}
			return true, region
		}
	}
	return false, d.Region
}

// matchHost compares label by label.
func matchHost(pattern, host string) (ok bool, region string) {
	if strings.HasPrefix(pattern, ".") {
		return strings.HasSuffix(host, pattern), ""
	}
	want, got := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(want) != len(got) {
		return false, ""
	}
	for i, label := range want {
		before, after, variable := strings.Cut(label, "{region}")
		switch {
		case label == "*" && got[i] != "":
		case variable && len(got[i]) > len(before)+len(after) && strings.HasPrefix(got[i], before) && strings.HasSuffix(got[i], after):
			region = got[i][len(before) : len(got[i])-len(after)]
		case label != got[i]:
			return false, ""
		}
	}
	return true, region
}
