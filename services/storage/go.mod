module horcrux/services/storage

go 1.26.0

require horcrux/pkg v0.0.0

require (
	github.com/google/uuid v1.6.0 // indirect
	go.uber.org/goleak v1.3.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	pgregory.net/rapid v1.3.0 // indirect
)

replace horcrux/pkg => ../../pkg
