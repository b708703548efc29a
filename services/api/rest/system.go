package rest

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/readmodel"
)

// GetHealth implements StrictServerInterface, as the methods below do.
func (s *Server) GetHealth(context.Context, GetHealthRequestObject) (GetHealthResponseObject, error) {
	return value(openapi.Health{Status: openapi.HealthStatusOk})
}

// checkTime bounds one answer of /readyz.
const checkTime = 3 * time.Second

func (s *Server) GetReadiness(ctx context.Context, _ GetReadinessRequestObject) (GetReadinessResponseObject, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	checks := map[string]Check{}
	for name, check := range s.Ready {
		checks[name] = check
	}
	if s.Elsewhere != nil {
		for name, err := range s.Elsewhere() {
			checks[name] = func(context.Context) error { return err }
		}
	}
	for _, p := range s.Model.Status() {
		checks["projection/"+p.Kind] = func(context.Context) error { return following(p) }
	}
	out := openapi.Readiness{Ready: true, Dependencies: make([]openapi.Dependency, 0, len(checks))}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for name, check := range checks {
		wg.Go(func() {
			err := check(ctx)
			mu.Lock()
			defer mu.Unlock()
			out.Dependencies = append(out.Dependencies, s.dependency(ctx, name, err))
			out.Ready = out.Ready && err == nil
		})
	}
	wg.Wait()
	slices.SortFunc(out.Dependencies, func(a, b openapi.Dependency) int { return strings.Compare(a.Name, b.Name) })
	a, err := value(out)
	if !out.Ready {
		a.status = http.StatusServiceUnavailable
	}
	return a, err
}

// stallTime is how long a projection may go without reaching the end of a page before the server is not ready.
const stallTime = 10 * time.Second

// following says why a projection does not follow the log. The cause is in the log of the server: it may quote what was
// recorded.
func following(p readmodel.Status) error {
	switch {
	case p.Halted != nil:
		return problem.New(problem.Unavailable, "halted at position %q: it met an event that this program cannot read; see the log", p.Position)
	case p.Stalled > stallTime:
		return problem.New(problem.Unavailable, "stalled at position %q for %s: the database does not answer; see the log",
			p.Position, p.Stalled.Round(time.Second))
	}
	return nil
}

// dependency says how a check ended. Anybody may read it, so only a problem is quoted; the log has the rest.
func (s *Server) dependency(ctx context.Context, name string, err error) openapi.Dependency {
	d := openapi.Dependency{Name: name, Ready: err == nil}
	if err == nil {
		return d
	}
	s.Log.WarnContext(ctx, "not ready", "dependency", name, "error", err)
	d.Detail = "it does not answer; see the log"
	if p := problem.From(err); p != nil {
		d.Detail = p.Detail
	}
	return d
}

func (s *Server) GetVersion(context.Context, GetVersionRequestObject) (GetVersionResponseObject, error) {
	return value(s.Version)
}

func (s *Server) ListFeatures(context.Context, ListFeaturesRequestObject) (ListFeaturesResponseObject, error) {
	return value(openapi.FeatureList{Items: append([]openapi.Feature{}, s.Features...)})
}

func (s *Server) GetOpenAPI(context.Context, GetOpenAPIRequestObject) (GetOpenAPIResponseObject, error) {
	return answer{status: http.StatusOK, body: s.contract.json, header: map[string]string{"Content-Type": "application/json"}}, nil
}

func (s *Server) GetDocs(context.Context, GetDocsRequestObject) (GetDocsResponseObject, error) {
	return answer{status: http.StatusOK, body: s.docs, header: map[string]string{
		"Content-Type":            "text/html; charset=utf-8",
		"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
	}}, nil
}

func (s *Server) GetMetrics(ctx context.Context, _ GetMetricsRequestObject) (GetMetricsResponseObject, error) {
	req := callOf(ctx).req
	return answer{stream: func(w http.ResponseWriter) error {
		promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{ErrorLog: promLog{s, ctx}}).ServeHTTP(w, req)
		return nil
	}}, nil
}

type promLog struct {
	*Server
	ctx context.Context
}

func (l promLog) Println(v ...any) { l.Log.ErrorContext(l.ctx, "metrics", "error", fmt.Sprint(v...)) }
