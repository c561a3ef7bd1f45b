// A resource server on github.com/zitadel/oidc: it asks the authority about each token, as an internal service.
package main

import (
	"context"
	"os"

	"accord.example/partner/settings"
	"github.com/zitadel/oidc/v3/pkg/client/rs"
	"github.com/zitadel/oidc/v3/pkg/oidc"
)

func main() {
	ctx := context.Background()
	server, err := rs.NewResourceServerClientCredentials(ctx, settings.TenantAuthorityURL,
		os.Getenv("WORKLOAD_ID"), os.Getenv("WORKLOAD_TOKEN"))
	settings.Check(err)
	for token, ok := settings.Hear(); ok; token, ok = settings.Hear() {
		response, err := rs.Introspect[*oidc.IntrospectionResponse](ctx, server, token)
		settings.Check(err)
		settings.Say(map[string]any{
			"accepted":  response.Active,
			"client_id": response.ClientID,
			"tenant_id": response.Claims["tenant_id"],
		})
	}
}
