package policy

import (
	"fmt"
	"strings"
	"testing"
)

// fifty are policies that all must be evaluated: nothing in their scope rules them out.
func fifty() string {
	var b strings.Builder
	for i := range 50 {
		fmt.Fprintf(&b, "permit (principal in Group::\"staff\", action in Action::\"read\", resource)\n"+
			"when { resource is Object && resource.key like \"folder%d/*\" && context.tls };\n", i)
	}
	return b.String() + `permit (principal, action in Action::"read", resource in Bucket::"data") when { context.source.isInRange(ip("10.0.0.0/8")) };`
}

// BenchmarkDecide must stay under 20 µs.
func BenchmarkDecide(b *testing.B) {
	var scoped strings.Builder
	for i := range 50 {
		fmt.Fprintf(&scoped, "permit (principal == User::\"user%d\", action in Action::\"read\", resource in Bucket::\"data\");\n", i)
	}
	scoped.WriteString(`permit (principal == User::"ann", action in Action::"read", resource in Bucket::"data");`)
	for name, text := range map[string]string{"worst": fifty(), "by-user": scoped.String(), "default": defaultPolicies} {
		b.Run(name, func(b *testing.B) {
			s := mustCheck(b, text, staff)
			q := ask("s3:GetObject")
			if name == "default" {
				q.Owner = "ann"
			}
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if !s.Decide(q).Allow {
						b.Fatal("denied")
					}
				}
			})
		})
	}
}
