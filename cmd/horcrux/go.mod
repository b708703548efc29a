module horcrux/cmd/horcrux

go 1.26.0

require horcrux/pkg v0.0.0
require horcrux/services/api v0.0.0
require horcrux/services/compute v0.0.0
require horcrux/services/storage v0.0.0

replace horcrux/pkg => ../../pkg
replace horcrux/services/api => ../../services/api
replace horcrux/services/compute => ../../services/compute
replace horcrux/services/storage => ../../services/storage
