package rest

import "net/http"

// An answer is the answer of every operation that is generated.

func (a answer) VisitAttachVMDiskResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitAttachVMNICResponse(w http.ResponseWriter) error          { return a.write(w) }
func (a answer) VisitCancelOperationResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitCreateNetworkResponse(w http.ResponseWriter) error        { return a.write(w) }
func (a answer) VisitCreateVMResponse(w http.ResponseWriter) error             { return a.write(w) }
func (a answer) VisitCreateVMSnapshotResponse(w http.ResponseWriter) error     { return a.write(w) }
func (a answer) VisitCreateVolumeResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitDeleteNetworkResponse(w http.ResponseWriter) error        { return a.write(w) }
func (a answer) VisitDeleteVMResponse(w http.ResponseWriter) error             { return a.write(w) }
func (a answer) VisitDeleteVMSnapshotResponse(w http.ResponseWriter) error     { return a.write(w) }
func (a answer) VisitDeleteVolumeResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitDetachVMDiskResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitDetachVMNICResponse(w http.ResponseWriter) error          { return a.write(w) }
func (a answer) VisitDropDeadLetterResponse(w http.ResponseWriter) error       { return a.write(w) }
func (a answer) VisitGetDeadLetterResponse(w http.ResponseWriter) error        { return a.write(w) }
func (a answer) VisitGetDocsResponse(w http.ResponseWriter) error              { return a.write(w) }
func (a answer) VisitGetHealthResponse(w http.ResponseWriter) error            { return a.write(w) }
func (a answer) VisitGetMetricsResponse(w http.ResponseWriter) error           { return a.write(w) }
func (a answer) VisitGetNetworkResponse(w http.ResponseWriter) error           { return a.write(w) }
func (a answer) VisitGetOpenAPIResponse(w http.ResponseWriter) error           { return a.write(w) }
func (a answer) VisitGetOperationResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitGetPoolResponse(w http.ResponseWriter) error              { return a.write(w) }
func (a answer) VisitGetReadinessResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitGetStatsResponse(w http.ResponseWriter) error             { return a.write(w) }
func (a answer) VisitGetVMResponse(w http.ResponseWriter) error                { return a.write(w) }
func (a answer) VisitGetVMSerialLogResponse(w http.ResponseWriter) error       { return a.write(w) }
func (a answer) VisitGetVMStatsResponse(w http.ResponseWriter) error           { return a.write(w) }
func (a answer) VisitGetVersionResponse(w http.ResponseWriter) error           { return a.write(w) }
func (a answer) VisitGetVolumeResponse(w http.ResponseWriter) error            { return a.write(w) }
func (a answer) VisitImportVMResponse(w http.ResponseWriter) error             { return a.write(w) }
func (a answer) VisitListDeadLettersResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitListEventsResponse(w http.ResponseWriter) error           { return a.write(w) }
func (a answer) VisitListFeaturesResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitListNetworkHistoryResponse(w http.ResponseWriter) error   { return a.write(w) }
func (a answer) VisitListNetworksResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitListNodeStatsHistoryResponse(w http.ResponseWriter) error { return a.write(w) }
func (a answer) VisitListOperationHistoryResponse(w http.ResponseWriter) error { return a.write(w) }
func (a answer) VisitListOperationLogResponse(w http.ResponseWriter) error     { return a.write(w) }
func (a answer) VisitListOperationsResponse(w http.ResponseWriter) error       { return a.write(w) }
func (a answer) VisitListPoolHistoryResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitListPoolsResponse(w http.ResponseWriter) error            { return a.write(w) }
func (a answer) VisitListUnmanagedVMsResponse(w http.ResponseWriter) error     { return a.write(w) }
func (a answer) VisitListVMHistoryResponse(w http.ResponseWriter) error        { return a.write(w) }
func (a answer) VisitListVMSnapshotsResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitListVMStatsHistoryResponse(w http.ResponseWriter) error   { return a.write(w) }
func (a answer) VisitListVMsResponse(w http.ResponseWriter) error              { return a.write(w) }
func (a answer) VisitListVolumeHistoryResponse(w http.ResponseWriter) error    { return a.write(w) }
func (a answer) VisitListVolumesResponse(w http.ResponseWriter) error          { return a.write(w) }
func (a answer) VisitOpenVMConsoleResponse(w http.ResponseWriter) error        { return a.write(w) }
func (a answer) VisitOpenVMSerialResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitPauseVMResponse(w http.ResponseWriter) error              { return a.write(w) }
func (a answer) VisitRebootVMResponse(w http.ResponseWriter) error             { return a.write(w) }
func (a answer) VisitResetVMResponse(w http.ResponseWriter) error              { return a.write(w) }
func (a answer) VisitResizeVMDiskResponse(w http.ResponseWriter) error         { return a.write(w) }
func (a answer) VisitRestoreVMSnapshotResponse(w http.ResponseWriter) error    { return a.write(w) }
func (a answer) VisitResumeVMResponse(w http.ResponseWriter) error             { return a.write(w) }
func (a answer) VisitRetryDeadLetterResponse(w http.ResponseWriter) error      { return a.write(w) }
func (a answer) VisitRevertVMResponse(w http.ResponseWriter) error             { return a.write(w) }
func (a answer) VisitShutdownVMResponse(w http.ResponseWriter) error           { return a.write(w) }
func (a answer) VisitStartVMResponse(w http.ResponseWriter) error              { return a.write(w) }
func (a answer) VisitStopVMResponse(w http.ResponseWriter) error               { return a.write(w) }
func (a answer) VisitUpdateVMResponse(w http.ResponseWriter) error             { return a.write(w) }
