package servers

import "context"

// StartMinIO is MinIO for programs that are no tests: it keeps its state in dir, which
// the caller removes after it has called stop.
func StartMinIO(ctx context.Context, dir string) (s *S3, stop func(), err error) {
	path, err := binary(ctx, "minio", "CHATELAINE_MINIO")
	if err != nil {
		return nil, nil, err
	}
	return startMinIO(ctx, path, dir)
}
