package partner;

import com.nimbusds.jose.jwk.JWK;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.StringReader;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.web.server.servlet.context.ServletWebServerInitializedEvent;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.event.EventListener;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.Authentication;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.OAuth2AuthorizedClientProviderBuilder;
import org.springframework.security.oauth2.client.annotation.RegisteredOAuth2AuthorizedClient;
import org.springframework.security.oauth2.client.endpoint.NimbusJwtClientAuthenticationParametersConverter;
import org.springframework.security.oauth2.client.endpoint.OAuth2ClientCredentialsGrantRequest;
import org.springframework.security.oauth2.client.endpoint.RestClientClientCredentialsTokenResponseClient;
import org.springframework.security.oauth2.client.registration.ClientRegistrationRepository;
import org.springframework.security.oauth2.client.web.DefaultOAuth2AuthorizedClientManager;
import org.springframework.security.oauth2.client.web.OAuth2AuthorizedClientRepository;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/** A partner's integration on Spring Security's OAuth 2.0 client, as its documentation shows it. */
@RestController
@EnableAutoConfiguration
@Configuration(proxyBeanMethods = false)
public class SpringClient {
    static final String ISSUER = System.getenv("TENANT_AUTHORITY_URL");

    static final PrintStream OUTPUT = System.out;

    /** What is in application.properties elsewhere. */
    static final String PROPERTIES =
            """
            server.address=127.0.0.1
            server.port=0
            logging.level.root=warn
            spring.main.banner-mode=off
            spring.security.oauth2.client.provider.accord.issuer-uri=${TENANT_AUTHORITY_URL}
            spring.security.oauth2.client.registration.accord.client-id=${CLIENT_ID}
            spring.security.oauth2.client.registration.accord.client-secret=${CLIENT_SECRET}
            spring.security.oauth2.client.registration.accord.authorization-grant-type=authorization_code
            spring.security.oauth2.client.registration.accord.redirect-uri={baseUrl}/callback
            spring.security.oauth2.client.registration.accord.scope=contacts.read,matters.read
            spring.security.oauth2.client.registration.own.provider=accord
            spring.security.oauth2.client.registration.own.client-id=${CLIENT_ID}
            spring.security.oauth2.client.registration.own.client-secret=${CLIENT_SECRET}
            spring.security.oauth2.client.registration.own.authorization-grant-type=client_credentials
            spring.security.oauth2.client.registration.by-key.provider=accord
            spring.security.oauth2.client.registration.by-key.client-id=${CLIENT_ID}
            spring.security.oauth2.client.registration.by-key.client-authentication-method=private_key_jwt
            spring.security.oauth2.client.registration.by-key.authorization-grant-type=client_credentials
            """;

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err); // the log
        var properties = new Properties();
        properties.load(new StringReader(PROPERTIES));
        var application = new SpringApplication(SpringClient.class);
        application.setDefaultProperties(properties);
        var context = application.run();
        // Ends with the test that started it.
        System.in.transferTo(OutputStream.nullOutputStream());
        context.close();
    }

    @EventListener
    void listens(ServletWebServerInitializedEvent event) {
        OUTPUT.println("{\"port\":" + event.getWebServer().getPort() + "}");
    }

    @Bean
    SecurityFilterChain security(HttpSecurity http) throws Exception {
        return http.authorizeHttpRequests(requests -> requests.anyRequest().permitAll())
                .oauth2Client(Customizer.withDefaults())
                .build();
    }

    @Bean
    OAuth2AuthorizedClientManager manager(
            ClientRegistrationRepository registrations, OAuth2AuthorizedClientRepository clients) throws Exception {
        // The authority takes an assertion for the issuer only, not for the token endpoint.
        var key = JWK.parse(System.getenv("PRIVATE_KEY"));
        var assertion = new NimbusJwtClientAuthenticationParametersConverter<OAuth2ClientCredentialsGrantRequest>(
                registration -> key);
        assertion.setJwtClientAssertionCustomizer(context -> context.getClaims().audience(List.of(ISSUER)));
        var own = new RestClientClientCredentialsTokenResponseClient();
        own.addParametersConverter(assertion);

        // A token that ends within ten minutes is renewed. That is every token: the test sees a renewal.
        var manager = new DefaultOAuth2AuthorizedClientManager(registrations, clients);
        manager.setAuthorizedClientProvider(OAuth2AuthorizedClientProviderBuilder.builder()
                .authorizationCode()
                .refreshToken(refresh -> refresh.clockSkew(Duration.ofMinutes(10)))
                .clientCredentials(credentials -> credentials.accessTokenResponseClient(own))
                .build());
        return manager;
    }

    @GetMapping("/connect")
    Map<String, ?> connect(@RegisteredOAuth2AuthorizedClient("accord") OAuth2AuthorizedClient client) {
        return tokens(client);
    }

    @GetMapping("/own")
    Map<String, ?> own(@RegisteredOAuth2AuthorizedClient("own") OAuth2AuthorizedClient client) {
        return tokens(client);
    }

    @GetMapping("/by-key")
    Map<String, ?> byKey(@RegisteredOAuth2AuthorizedClient("by-key") OAuth2AuthorizedClient client) {
        return tokens(client);
    }

    static Map<String, ?> tokens(OAuth2AuthorizedClient client) {
        var refreshToken = client.getRefreshToken();
        return Map.of(
                "access_token", client.getAccessToken().getTokenValue(),
                "scope", client.getAccessToken().getScopes(),
                "refresh_token", refreshToken == null ? "" : refreshToken.getTokenValue());
    }
}
