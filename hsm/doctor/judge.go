package doctor

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"chatelaine/hsm"
)

// judgeSlots judges the slots together.
func judgeSlots(slots []hsm.SlotFacts) []Finding {
	var out []Finding
	labels := map[string]int{}
	for _, s := range slots {
		if s.Problem != "" {
			out = append(out, Finding{Warning, fmt.Sprintf("slot %d", s.ID), s.Problem, "if it is the slot of our token, ask the vendor's tool about it; others do not matter"})
		}
		if s.Token != nil {
			labels[s.Token.Label]++
		}
	}
	if len(labels) == 0 {
		out = append(out, Finding{
			Warning, "module", "no slot has a token",
			"check the configuration file of the vendor's client, and that the user of this process may read it; SoftHSM finds its tokens by SOFTHSM2_CONF",
		})
	}
	for label, n := range labels {
		if n > 1 {
			out = append(out, Finding{
				Warning, "module", fmt.Sprintf("%d tokens have the label %q", n, label),
				"name the token by its serial number: token: pkcs11:token=LABEL;serial=NUMBER",
			})
		}
	}
	return out
}

// flagFindings are what a token's flags mean. The level is of the flag when it is set.
func flagFindings() map[string]Finding {
	return map[string]Finding{
		"CKF_USER_PIN_LOCKED":    {Failure, "token", "the PIN is locked", "the security officer sets a new one with the vendor's tool"},
		"CKF_USER_PIN_FINAL_TRY": {Failure, "token", "one more wrong PIN locks the token, so none is tried", "log in once with the vendor's tool and the right PIN"},
		"CKF_USER_PIN_COUNT_LOW": {Warning, "token", "a wrong PIN was tried since the last login", "find out who did; log in once with the vendor's tool"},
		"CKF_USER_PIN_TO_BE_CHANGED": {
			Warning, "token", "the PIN is the one that it was initialised with", "change it with the vendor's tool, then in the KMS's PIN file",
		},
		"CKF_PROTECTED_AUTHENTICATION_PATH": {
			Warning, "token", "the token wants its PIN on a keypad or a card", "use a partition that takes the PIN from the program: a service starts with nobody at hand",
		},
		"CKF_WRITE_PROTECTED": {
			Warning, "token", "the token is write-protected", "KEKs cannot be made or destroyed by this user; make them with the user who may",
		},
		"CKF_ERROR_STATE": {Failure, "token", "the token says that it is in error", "reset it with the vendor's tool; it failed a self-test of its own"},
	}
}

// judgeToken judges what the token says of itself before a login.
func judgeToken(t hsm.TokenFacts, c hsm.Config) []Finding {
	out := []Finding{{Good, "token", fmt.Sprintf("%q is there: %s %s, serial %s, firmware %s", t.Label, t.Manufacturer, t.Model, t.Serial, t.Firmware), ""}}
	for _, flag := range t.Flags {
		if f, ok := flagFindings()[flag]; ok {
			out = append(out, f)
		}
	}
	if !t.Has("CKF_USER_PIN_INITIALIZED") {
		out = append(out, Finding{Failure, "token", "the user has no PIN yet", "the security officer sets one with the vendor's tool"})
	}
	if !t.Has("CKF_LOGIN_REQUIRED") {
		out = append(out, Finding{Warning, "token", "it can be used without a login", "whoever reaches it can use public objects; our keys are private, but ask the vendor whether that is meant"})
	}
	if !t.Has("CKF_RNG") {
		out = append(out, Finding{Warning, "token", "it says that it has no generator of random bytes", "the KMS needs one: bucket keys are made of the token's random and the machine's"})
	}
	if strings.HasPrefix(t.Model, "SoftHSM") {
		out = append(out, Finding{Warning, "token", "SoftHSM keeps keys in files", "use it for development; take a device for data that matters"})
	}
	out = append(out, judgeSessions(t, c)...)
	return append(out, judgeMechanisms(t, c.Mechanism)...)
}

// judgeSessions compares the token's limits with what the KMS would use.
func judgeSessions(t hsm.TokenFacts, c hsm.Config) []Finding {
	most := t.MaxSessions
	if rw := t.MaxRWSessions; most == nil || rw != nil && *rw < *most {
		most = rw
	}
	if most == nil {
		return []Finding{{Good, "sessions", "the token names no limit", ""}}
	}
	wanted := uint(max(0, c.MaxSessions))
	var out []Finding
	if *most < wanted+3 && wanted > 0 {
		out = append(out, Finding{
			Note, "sessions", fmt.Sprintf("max_sessions is %d and the token has %d", wanted, *most),
			"the KMS takes what there is, less three; lower max_sessions, or raise the token's limit",
		})
	}
	if *most < 8 {
		out = append(out, Finding{
			Warning, "sessions", fmt.Sprintf("the token has %d sessions at most", *most),
			"requests that need the HSM wait for one another; a longer ttl makes fewer of them, strict buckets more",
		})
	}
	if t.Sessions != nil && *t.Sessions+3 > *most {
		out = append(out, Finding{
			Failure, "sessions", fmt.Sprintf("%d of %d sessions are taken", *t.Sessions, *most),
			"find who holds them: another service, or one that crashed; the vendor's tool can close them",
		})
	}
	if len(out) == 0 {
		out = append(out, Finding{Good, "sessions", fmt.Sprintf("the token has %d at most", *most), ""})
	}
	return out
}

// need is a mechanism with the uses that a profile makes of it.
type need struct {
	mechanism string
	uses      []string
}

// needs are what each profile of package hsm calls.
func needs() map[hsm.Mechanism][]need {
	crypt := []string{"encrypt", "decrypt"}
	return map[hsm.Mechanism][]need{
		hsm.AESGCM:        {{"CKM_AES_GCM", crypt}},
		hsm.AESGCM16:      {{"CKM_AES_GCM", crypt}},
		hsm.AESCBCHMAC:    {{"CKM_AES_CBC_PAD", crypt}, {"CKM_SHA256_HMAC", []string{"sign"}}},
		hsm.RSAOAEPSHA256: {{"CKM_RSA_PKCS_OAEP", []string{"decrypt"}}},
		hsm.RSAOAEPSHA1:   {{"CKM_RSA_PKCS_OAEP", []string{"decrypt"}}},
	}
}

// generators are what makes each profile's keys.
func generators() map[hsm.Mechanism]string {
	return map[hsm.Mechanism]string{
		hsm.AESGCM: "CKM_AES_KEY_GEN", hsm.AESGCM16: "CKM_AES_KEY_GEN", hsm.AESCBCHMAC: "CKM_AES_KEY_GEN",
		hsm.RSAOAEPSHA256: "CKM_RSA_PKCS_KEY_PAIR_GEN", hsm.RSAOAEPSHA1: "CKM_RSA_PKCS_KEY_PAIR_GEN",
	}
}

// missing names what a token lacks for a profile.
func missing(t hsm.TokenFacts, m hsm.Mechanism) []string {
	var out []string
	for _, n := range needs()[m] {
		if has, ok := t.Mechanism(n.mechanism); !ok || !has.Can(n.uses...) {
			out = append(out, fmt.Sprintf("%s (%s)", n.mechanism, strings.Join(n.uses, ", ")))
		}
	}
	return out
}

// judgeMechanisms judges whether the configured profile can be spoken, and names those
// that can. Whether they really can, the self-test tells.
func judgeMechanisms(t hsm.TokenFacts, configured hsm.Mechanism) []Finding {
	if configured == "" {
		configured = hsm.AESGCM
	}
	if !slices.Contains(hsm.Mechanisms(), configured) {
		return []Finding{{Failure, "mechanisms", fmt.Sprintf("%q is configured, and there is no such mechanism", configured), fmt.Sprintf("configure one of %q", hsm.Mechanisms())}}
	}
	var can []string
	for _, m := range hsm.Mechanisms() {
		if len(missing(t, m)) == 0 {
			can = append(can, string(m))
		}
	}
	if lacks := missing(t, configured); len(lacks) > 0 {
		mend := "this token can do none of our mechanisms: ask the vendor for AES-GCM, by firmware, licence or policy"
		if len(can) > 0 {
			mend = "configure one that it says it has: " + strings.Join(can, ", ")
		}
		return []Finding{{Failure, "mechanisms", fmt.Sprintf("the token lacks %s, which %s needs", strings.Join(lacks, " and "), configured), mend}}
	}
	out := []Finding{{Good, "mechanisms", fmt.Sprintf("%d, and what %s needs among them; it says that it could do %s", len(t.Mechanisms), configured, strings.Join(can, ", ")), ""}}
	if generator, ok := t.Mechanism(generators()[configured]); !ok || !(generator.Can("generate") || generator.Can("generate pair")) {
		out = append(out, Finding{
			Warning, "mechanisms", "the token lacks " + generators()[configured] + ", so that no key can be made",
			"a policy of the token or of the user's role may forbid it; make KEKs with the user who may",
		})
	}
	return out
}

// judgeKEKs judges whether there is a version of each KEK that is configured.
func judgeKEKs(c Config, labels []string) []Finding {
	names := slices.Sorted(maps.Keys(c.Mechanisms))
	if c.KEK != "" && !slices.Contains(names, c.KEK) {
		names = append([]string{c.KEK}, names...)
	}
	var out []Finding
	for _, name := range names {
		if slices.ContainsFunc(labels, func(label string) bool { return c.nameOf(label) == name }) {
			continue
		}
		mend := "`chatelaine key create " + name + "` makes it for " + string(c.mechanism(name))
		if name == c.KEK {
			mend = "the KMS makes it on its first start; in a KMS whose state was lost it must be found: is it the right token and prefix?"
		}
		out = append(out, Finding{Note, "key " + c.Prefix + name, "there is no version of it yet", mend})
	}
	return out
}

// judgeObjects judges the attributes of all objects of a key.
func judgeObjects(about string, objects []hsm.ObjectFacts) []Finding {
	var out []Finding
	seen := map[string]int{}
	for _, o := range objects {
		seen[o.Label+"/"+o.Class]++
		if seen[o.Label+"/"+o.Class] == 2 {
			out = append(out, Finding{
				Failure, about, fmt.Sprintf("more than one %s has this label", o.Class),
				"find out which one wraps our keys (their check values differ) and rename the others with the vendor's tool; delete none before that",
			})
		}
		if o.Class != "public key" {
			out = append(out, judgeAttributes(about, o)...)
		}
	}
	return out
}

func judgeAttributes(about string, o hsm.ObjectFacts) []Finding {
	var out []Finding
	for _, a := range o.Attributes {
		switch {
		case a.Want != "" && a.Value != a.Want:
			out = append(out, Finding{Failure, about, fmt.Sprintf("%s is %s, and must be %s", a.Name, a.Value, a.Want), mendAttribute(a)})
		case a.Want == "" && a.Value == "true" && slices.Contains([]string{"CKA_WRAP", "CKA_UNWRAP", "CKA_DERIVE"}, a.Name):
			out = append(out, Finding{
				Warning, about, a.Name + " is true: the key can be used to carry other keys in or out",
				"rotate to a version that the KMS makes: it is for encrypting and decrypting alone",
			})
		}
	}
	if len(o.CheckValues) == 2 && o.CheckValues[0].Value != o.CheckValues[1].Value {
		out = append(out, Finding{
			Warning, about, fmt.Sprintf("%s is %s, and by %s it is %s", o.CheckValues[0].Method, o.CheckValues[0].Value, o.CheckValues[1].Method, o.CheckValues[1].Value),
			"compare keys by one method only; ask the vendor what the first one is made of",
		})
	}
	return out
}

func mendAttribute(a hsm.AttributeFacts) string {
	switch {
	case a.Value == "unreadable":
		return "nobody can say that the key is safe: ask the vendor how this attribute is shown, then make a new KEK"
	case a.Name == "CKA_TOKEN":
		return "it is a key of a session, and will be gone: make the KEK anew"
	case a.Name == "CKA_MODIFIABLE":
		return "who may log in can change its attributes: make a new version and rewrap; some tokens let the security officer seal this one"
	case a.Name == "CKA_PRIVATE":
		return "it can be used without a login: make a new version and rewrap"
	}
	return "it may have been outside of the token: make a new version (chatelaine key rotate), rewrap, and destroy this one"
}

// judgeRates says what the speeds mean.
func judgeRates(rates []Rate, deadline time.Duration) []Finding {
	if deadline == 0 {
		deadline = 10 * time.Second
	}
	var out []Finding
	for _, r := range rates {
		level, mend := Good, ""
		if r.P99 > deadline/4 {
			level, mend = Warning, "one call in a hundred takes more than a quarter of the deadline: look for load or a bad line to the HSM, or raise deadline"
		}
		out = append(out, Finding{level, "speed", fmt.Sprintf("%s, %d at once: %.0f a second, median %v, p99 %v",
			r.Operation, r.Callers, r.PerSecond, r.Median.Round(time.Microsecond), r.P99.Round(time.Microsecond)), mend})
	}
	return out
}

// mendError says what to do about an error of package hsm.
func mendError(err error) string {
	for _, m := range []struct {
		is   error
		mend string
	}{
		{hsm.ErrPIN, "correct the PIN, and only then try again: it was tried once at most, and tokens lock. `pkcs11-tool` or the vendor's tool unlocks"},
		{hsm.ErrNoToken, "compare the label with the slots above; check the vendor's client configuration, the line to the HSM, and that the partition is assigned to this client"},
		{hsm.ErrAmbiguous, "say which by its serial number (token: pkcs11:token=LABEL;serial=NUMBER), or rename all but one"},
		{hsm.ErrModule, "install the vendor's client; give the whole path; `ldd FILE` shows libraries that are missing; module and process must be of one architecture, and this binary built with cgo"},
		{hsm.ErrInUse, "somebody else in this process uses the module; say it again, and report it"},
		{hsm.ErrRole, "this user may not: start the KMS once with the user who may make keys, or let it serve with that one"},
		{hsm.ErrKind, "the key is of a kind that no mechanism of ours uses: another program's? A different prefix keeps labels apart"},
		{errOther, "take this token out of `failover`, find out which of the keys wraps ours (check values are above), and copy that one with the vendor's tool"},
		{hsm.ErrUnsafe, "do not use it: the token or the key does not keep what is promised. The line above says what was seen"},
		{hsm.ErrUnsupported, "configure another mechanism; which ones the token says it has is above"},
		{hsm.ErrUnavailable, "the device does not answer now: network, certificates of the vendor's client, power; the vendor's tool says more"},
		{hsm.ErrExists, "say it again"},
		{hsm.ErrNotFound, "the key is gone, or this user cannot see it"},
	} {
		if errors.Is(err, m.is) {
			return m.mend
		}
	}
	return "the code above is the module's: the vendor's list of codes says more"
}
