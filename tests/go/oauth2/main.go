// A partner's integration on golang.org/x/oauth2, as its documentation shows it.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"net/url"
	"strings"

	"accord.example/partner/settings"
	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

func main() {
	ctx := context.Background()
	provider, err := oidc.NewProvider(ctx, settings.TenantAuthorityURL)
	settings.Check(err)
	endpoint := provider.Endpoint()
	// Otherwise the library tries both styles, and a code works only once.
	endpoint.AuthStyle = oauth2.AuthStyleInHeader
	config := oauth2.Config{
		ClientID:     settings.ClientID,
		ClientSecret: settings.ClientSecret,
		Endpoint:     endpoint,
		RedirectURL:  settings.RedirectURI,
		Scopes:       settings.Scopes,
	}

	verifier, state := oauth2.GenerateVerifier(), oauth2.GenerateVerifier()
	settings.Say(map[string]string{
		"authorization_url": config.AuthCodeURL(state, oauth2.S256ChallengeOption(verifier)),
	})

	line, _ := settings.Hear()
	cameBackTo, err := url.Parse(line)
	settings.Check(err)
	answer := cameBackTo.Query()
	if answer.Get("state") != state || answer.Get("iss") != settings.TenantAuthorityURL {
		log.Fatal("the answer to another request")
	}
	first, err := config.Exchange(ctx, answer.Get("code"), oauth2.VerifierOption(verifier))
	settings.Check(err)
	settings.Step("code", first)

	refresh := func(refreshToken string) (*oauth2.Token, error) {
		return config.TokenSource(ctx, &oauth2.Token{RefreshToken: refreshToken}).Token()
	}
	second, err := refresh(first.RefreshToken)
	settings.Check(err)
	settings.Step("refresh", second)

	// This grant repeats a call without harm: the library may find out the style by itself.
	backend := clientcredentials.Config{
		ClientID:     settings.ClientID,
		ClientSecret: settings.ClientSecret,
		TokenURL:     endpoint.TokenURL,
		Scopes:       settings.Scopes,
	}
	own, err := backend.Token(ctx)
	settings.Check(err)
	settings.Step("client_credentials", own)

	// The library has no function for revocation.
	var metadata struct {
		RevocationEndpoint string `json:"revocation_endpoint"`
	}
	settings.Check(provider.Claims(&metadata))
	form := url.Values{"token": {second.RefreshToken}}
	request, err := http.NewRequest(http.MethodPost, metadata.RevocationEndpoint, strings.NewReader(form.Encode()))
	settings.Check(err)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.SetBasicAuth(settings.ClientID, settings.ClientSecret)
	response, err := http.DefaultClient.Do(request)
	settings.Check(err)
	settings.Check(response.Body.Close())
	if response.StatusCode != http.StatusOK {
		log.Fatal(response.Status)
	}
	_, err = refresh(second.RefreshToken)
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		log.Fatal("not refused: ", err)
	}
	settings.Step("revoke", map[string]string{"refreshing": refused.ErrorCode})
}
