module horcrux/test

go 1.26.0

require horcrux/pkg v0.0.0

require horcrux/services/api v0.0.0

require horcrux/services/compute v0.0.0

require horcrux/services/storage v0.0.0

require (
	github.com/digitalocean/go-libvirt v0.0.0-20261013170128-efbbdf578ac8 // indirect
	github.com/google/uuid v1.6.0 // indirect
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace horcrux/pkg => ../pkg

replace horcrux/services/api => ../services/api

replace horcrux/services/compute => ../services/compute

replace horcrux/services/storage => ../services/storage
