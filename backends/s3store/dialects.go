package s3store

// Sources that several rows have.
const (
	sourceSDK    = "endpoint rules of aws-sdk-go-v2 service/s3 1.109.1 (internal/endpoints)"
	sourceRclone = "provider table of rclone 1.76.0 (backend/s3/provider): endpoints and quirks"
	sourceTried  = "tried: TestContract of this package on it, and `chatelaine backend check`"

	both = "path, host"
	path = "path"
)

// Dialects is the table. The first row whose host pattern fits is taken. Facts without
// a source of their own are unknown; those of clouds are from their documentation or
// from others' reports, and have not been tried from here.
func Dialects() []Dialect {
	rows := append(amazon(), servers()...)
	rows = append(rows, europe()...)
	rows = append(rows, world()...)
	return append(rows, Dialect{
		Name: generic, Addressing: path, Checksum: CRC64NVME, MaxParts: 10000,
		Sources: []string{"nothing is known of it"},
		Note:    "run `chatelaine backend check` against it",
	})
}

// amazon has a row for each partition, as their hosts differ; S3 is the same in each.
func amazon() (rows []Dialect) {
	for _, p := range []struct{ name, region, suffix string }{
		{"aws", "us-east-1", "amazonaws.com"},
		{"aws-cn", "cn-north-1", "amazonaws.com.cn"},
		{"aws-eusc", "eusc-de-east-1", "amazonaws.eu"},
		{"aws-us-gov", "us-gov-west-1", ""}, // by name: its hosts are those of aws
		{"aws-iso", "us-iso-east-1", "c2s.ic.gov"},
		{"aws-iso-b", "us-isob-east-1", "sc2s.sgov.gov"},
		{"aws-iso-e", "eu-isoe-west-1", "cloud.adc-e.uk"},
		{"aws-iso-f", "us-isof-south-1", "csp.hci.ic.gov"},
	} {
		d := Dialect{
			Name: p.name, Region: p.region, Addressing: both, Checksum: CRC64NVME,
			IfNoneMatch: Yes, IfMatch: Yes, IfOnComplete: Yes, IfOnDelete: Yes, IfOnCopy: Yes,
			LeadingSlash: Yes, PathKeys: No, ETag: "md5", MaxParts: 10000, EqualParts: No, Copies: Yes, Versions: Yes,
			Sources: []string{
				sourceSDK,
				"S3 user guide: conditional requests, multipart upload limits, checking object integrity",
			},
			aws: true,
		}
		if p.suffix != "" {
			d.Hosts = []string{"s3.{region}." + p.suffix, "s3-fips.{region}." + p.suffix, "." + p.suffix}
		}
		if p.name == "aws-eusc" {
			d.Note = "the European Sovereign Cloud; its documentation has not been compared with that of AWS operation by operation"
		}
		rows = append(rows, d)
	}
	return rows
}

// servers are programs that anybody may run: chosen by name.
func servers() []Dialect {
	return []Dialect{
		{
			Name: "minio", Addressing: both, Checksum: CRC64NVME,
			IfNoneMatch: Yes, IfMatch: Yes, IfOnComplete: Yes, IfOnDelete: No, IfOnCopy: No,
			LeadingSlash: No, PathKeys: Yes, ETag: "md5", MaxParts: 10000, EqualParts: No, Copies: Yes, Versions: Yes,
			Sources: []string{sourceTried + " (2026-02-12)"},
			Note:    "If-Match on a delete, and conditions of a copy's destination, are ignored by it",
		},
		{
			Name: "versitygw", Addressing: both, Checksum: CRC64NVME,
			IfNoneMatch: Yes, IfMatch: Yes, IfOnComplete: Yes, IfOnDelete: No, IfOnCopy: No,
			LeadingSlash: No, PathKeys: Yes, ETag: "md5", MaxParts: 10000, EqualParts: No, Copies: Yes, Versions: No,
			OwnConditions: true, FoldersCollide: true,
			Sources: []string{sourceTried + " (1.8.0, posix)"},
			Note: "versions are not offered: versions that are written at once get lost, and HEAD does not find the null version; " +
				"a delete of what has gone ignores If-Match",
		},
		{
			Name: "ceph", Addressing: both, Checksum: NoChecksum,
			IfNoneMatch: Yes, IfMatch: No, IfOnComplete: No, IfOnDelete: No, IfOnCopy: No,
			LeadingSlash: Yes, PathKeys: No, ETag: "md5", MaxParts: 10000, EqualParts: No, Copies: No, Versions: No,
			OwnConditions: true, CreatesAgain: true, EncodesUnasked: true,
			Sources: []string{"tried: Ceph 16.2.15 of Debian 12", "github.com/ceph/s3-tests issue 583 and pull 693: conditions of Complete are of 2025"},
			Note: "as of 16.2: conditions of Complete, delete and copy are ignored, a copy's source cannot be pinned, a delete marker " +
				"is not named; newer releases can do more: try them with `chatelaine backend check` and dialect=generic",
		},
		{
			Name: "seaweedfs", Addressing: both, Checksum: CRC64NVME, MaxParts: 10000, ETag: "other",
			Sources: []string{sourceRclone},
			Note:    "not tried: its module is not to be had here",
		},
	}
}

// europe are clouds of Europe.
func europe() []Dialect {
	return []Dialect{
		{
			Name: "ovh", Hosts: []string{"s3.{region}.io.cloud.ovh.net", "s3.{region}.io.cloud.ovh.us", "s3.{region}.perf.cloud.ovh.net"},
			Region: "gra", Addressing: both, Checksum: NoChecksum,
			IfNoneMatch: No, IfMatch: No, IfOnComplete: No, IfOnDelete: No, IfOnCopy: No, MaxParts: 10000,
			Sources: []string{
				sourceRclone, "github.com/ovh/public-cloud-roadmap issue 781: no unsigned payload with trailer",
				"github.com/ovh/public-cloud-roadmap issue 671: conditional writes are asked for, open",
			},
		},
		{
			Name: "scaleway", Hosts: []string{"s3.{region}.scw.cloud"},
			Region: "fr-par", Addressing: both, Checksum: NoChecksum,
			IfNoneMatch: Yes, IfMatch: Yes, MaxParts: 1000,
			Sources: []string{
				sourceRclone, "scaleway.com/en/docs/object-storage/api-cli/using-conditional-writes",
				"github.com/scaleway/terraform-provider-scaleway pull 4028: conditional writes since May 2026",
			},
			Note: "an upload has 1000 parts at most; whether a part number above 1000 is taken is not known",
		},
		{
			Name: "otc", Hosts: []string{"obs.{region}.otc.t-systems.com"},
			Region: "eu-de", Addressing: both, Checksum: NoChecksum,
			IfNoneMatch: No, IfMatch: No, IfOnComplete: No, IfOnDelete: No, IfOnCopy: No, MaxParts: 10000,
			Sources: []string{
				"github.com/opentelekomcloud/terraform-provider-opentelekomcloud issue 3328: If-None-Match does not lock",
				"github.com/milvus-io/milvus pull 49978: OBS refuses trailers",
			},
		},
		{
			Name: "hetzner", Hosts: []string{"{region}.your-objectstorage.com"},
			Region: "fsn1", Addressing: both, Checksum: NoChecksum, CreatesAgain: true, ETag: "md5", MaxParts: 10000,
			Sources: []string{sourceRclone, "docs.hetzner.com/storage/object-storage/supported-actions"},
			Note:    "a copy may fail although both buckets are in one location, says its documentation",
		},
		{
			Name: "ionos", Hosts: []string{"s3.{region}.ionoscloud.com", "s3-{region}.ionoscloud.com"},
			Region: "de", Addressing: path, Checksum: NoChecksum, CreatesAgain: true, MaxParts: 10000,
			Sources: []string{sourceRclone},
			Note:    "Frankfurt (s3.eu-central-1) signs for the region \"de\": say region=de there",
		},
		{
			Name: "exoscale", Hosts: []string{"sos-{region}.exo.io"},
			Region: "ch-dk-2", Addressing: both, Checksum: NoChecksum, MaxParts: 10000,
			Sources: []string{"community.exoscale.com: Simple Object Storage (endpoints); nothing was found about conditions and checksums"},
		},
	}
}

// world are other clouds.
func world() []Dialect {
	return []Dialect{
		{
			Name: "r2", Hosts: []string{"*.r2.cloudflarestorage.com", "*.*.r2.cloudflarestorage.com"},
			Region: "auto", Addressing: path, Checksum: CRC64NVME,
			IfNoneMatch: Yes, IfMatch: Yes, IfOnComplete: Yes, IfOnDelete: No, IfOnCopy: No,
			ETag: "other", MaxParts: 10000, EqualParts: Yes,
			Sources: []string{
				"developers.cloudflare.com/r2/api/s3/api and /r2/api/s3/conditional-operations", sourceRclone,
				"gist.github.com/johnspurlock-skymethod/6027c81953f81aa535d889d86a1061ba: parts of one size",
			},
			Note: "parts must be of one size but for the last, and the gateway's last part is its own: where the last part of a " +
				"client is smaller than the others, R2 will refuse to complete the upload",
		},
		{
			Name: "b2", Hosts: []string{"s3.{region}.backblazeb2.com"},
			Addressing: both, Checksum: NoChecksum,
			IfNoneMatch: No, IfMatch: No, IfOnComplete: No, IfOnDelete: No, IfOnCopy: No, MaxParts: 10000,
			Sources: []string{
				"backblaze.com/docs/cloud-storage-call-the-s3-compatible-api: endpoints, list of calls (no tagging)",
				"github.com/sathinduga/obsidian-s3-sync-and-backup pull 84: conditions of PUT are NotImplemented",
				"github.com/io7m-com/exfilac issue 35: checksum headers were refused; others report that this was mended in 2025",
			},
			Note: "every bucket keeps versions; https only",
		},
		{
			Name: "wasabi", Hosts: []string{"s3.wasabisys.com", "s3.{region}.wasabisys.com"},
			Region: "us-east-1", Addressing: both, Checksum: NoChecksum, MaxParts: 10000,
			Sources: []string{"docs.wasabi.com/docs/rest-api-introduction: path style is recommended", sourceRclone},
		},
		{
			Name: "gcs", Hosts: []string{"storage.googleapis.com"},
			Region: "auto", Addressing: both, Checksum: NoChecksum,
			IfNoneMatch: No, IfMatch: No, IfOnComplete: No, IfOnDelete: No, IfOnCopy: No, MaxParts: 10000, Copies: No,
			Sources: []string{
				"github.com/apache/opendal issue 7889: writes have preconditions by generation alone",
				"github.com/milvus-io/milvus pull 49978: trailers are refused", sourceRclone,
			},
			Note: "parts cannot be copied (issuetracker.google.com/issues/323465186), legal holds are not there; it alters the " +
				"Accept-Encoding that requests sign (github.com/rclone/rclone issue 6670): gcs:// is the way to use Google's storage",
		},
	}
}
