package azurestore

// Refuses says which keys are too long as names of blobs.
func Refuses(key string) bool {
	_, err := blobName(key)
	return err != nil
}
