module horcrux/cmd/horcrux

go 1.26.0

require horcrux/pkg v0.0.0

require horcrux/services/api v0.0.0

require horcrux/services/compute v0.0.0

require horcrux/services/storage v0.0.0

require (
	github.com/google/uuid v1.6.0 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/spf13/cobra v1.10.2 // indirect
	github.com/spf13/pflag v1.0.9 // indirect
	go.yaml.in/yaml/v3 v3.0.6 // indirect
)

replace horcrux/pkg => ../../pkg

replace horcrux/services/api => ../../services/api

replace horcrux/services/compute => ../../services/compute

replace horcrux/services/storage => ../../services/storage
