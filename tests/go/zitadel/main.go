// A partner's integration on github.com/zitadel/oidc, as its documentation shows it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"net/url"
	"os"

	"accord.example/partner/settings"
	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"golang.org/x/oauth2"
)

func signer() (jose.Signer, error) {
	var key jose.JSONWebKey
	if err := json.Unmarshal([]byte(os.Getenv("PRIVATE_KEY")), &key); err != nil {
		return nil, err
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(key.Algorithm), Key: key}, nil)
}

func party(secret string, options ...rp.Option) rp.RelyingParty {
	party, err := rp.NewRelyingPartyOIDC(context.Background(), settings.TenantAuthorityURL,
		settings.ClientID, secret, settings.RedirectURI, settings.Scopes, options...)
	settings.Check(err)
	return party
}

func main() {
	ctx := context.Background()
	bySecret := party(settings.ClientSecret, rp.WithAuthStyle(oauth2.AuthStyleInHeader))
	// The library signs assertions for the issuer, as a list of one.
	byKey := party("", rp.WithJWTProfile(signer))

	verifier, state := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	challenge := oauth2.S256ChallengeFromVerifier(verifier)
	settings.Say(map[string]string{
		"authorization_url": rp.AuthURL(state, bySecret, rp.WithCodeChallenge(challenge)),
	})

	line, _ := settings.Hear()
	cameBackTo, err := url.Parse(line)
	settings.Check(err)
	answer := cameBackTo.Query()
	if answer.Get("state") != state || answer.Get("iss") != settings.TenantAuthorityURL {
		log.Fatal("the answer to another request")
	}
	first, err := rp.CodeExchange[*oidc.IDTokenClaims](ctx, answer.Get("code"), bySecret, rp.WithCodeVerifier(verifier))
	// There is no ID token: this is OAuth 2.0. The tokens are there nevertheless.
	if !errors.Is(err, rp.ErrMissingIDToken) {
		settings.Check(err)
	}
	settings.Step("code", first.Token)

	second, err := rp.RefreshTokens[*oidc.IDTokenClaims](ctx, byKey, first.RefreshToken, "", "")
	settings.Check(err)
	settings.Step("refresh", second.Token)

	own, err := rp.ClientCredentials(ctx, bySecret, url.Values{})
	settings.Check(err)
	settings.Step("client_credentials", own)

	settings.Check(rp.RevokeToken(ctx, bySecret, second.RefreshToken, "refresh_token"))
	_, err = rp.RefreshTokens[*oidc.IDTokenClaims](ctx, bySecret, second.RefreshToken, "", "")
	var refused *oidc.Error
	if !errors.As(err, &refused) {
		log.Fatal("not refused: ", err)
	}
	settings.Step("revoke", map[string]string{"refreshing": string(refused.ErrorType)})
}
