package kmsv1

// The generated files are committed. To make them again, Debian's
// protobuf-compiler and the two plug-ins, in the versions of go.mod, must be there:
//
//	go install google.golang.org/protobuf/cmd/protoc-gen-go
//	go install connectrpc.com/connect/cmd/protoc-gen-connect-go
//
//go:generate sh -c "cd ../../.. && protoc -I . --go_out=. --go_opt=paths=source_relative --connect-go_out=. --connect-go_opt=paths=source_relative,simple kms/service/kmsv1/*.proto"
