package partner;

import java.io.OutputStream;
import java.io.PrintStream;
import java.io.StringReader;
import java.util.Map;
import java.util.Properties;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.web.server.servlet.context.ServletWebServerInitializedEvent;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.event.EventListener;
import org.springframework.core.annotation.Order;
import org.springframework.security.config.Customizer;
import org.springframework.security.config.annotation.web.builders.HttpSecurity;
import org.springframework.security.core.annotation.AuthenticationPrincipal;
import org.springframework.security.oauth2.core.OAuth2AuthenticatedPrincipal;
import org.springframework.security.oauth2.jwt.Jwt;
import org.springframework.security.oauth2.jwt.JwtValidators;
import org.springframework.security.oauth2.jwt.NimbusJwtDecoder;
import org.springframework.security.oauth2.jwt.SupplierJwtDecoder;
import org.springframework.security.web.SecurityFilterChain;
import org.springframework.web.bind.annotation.GetMapping;
import org.springframework.web.bind.annotation.RestController;

/**
 * A resource server on Spring Security: it asks the authority about each token, as an internal service. At another path it
 * verifies tokens by the authority's keys. Both take tokens that are bound to a key (RFC 9449), with a proof.
 */
@RestController
@EnableAutoConfiguration
@Configuration(proxyBeanMethods = false)
public class SpringResourceServer {
    static final PrintStream OUTPUT = System.out;

    /** What is in application.properties elsewhere. */
    static final String PROPERTIES =
            """
            server.address=127.0.0.1
            server.port=0
            logging.level.root=warn
            spring.main.banner-mode=off
            spring.security.oauth2.resourceserver.opaquetoken.introspection-uri=${TENANT_AUTHORITY_URL}/oauth2/introspect
            spring.security.oauth2.resourceserver.opaquetoken.client-id=${WORKLOAD_ID}
            spring.security.oauth2.resourceserver.opaquetoken.client-secret=${WORKLOAD_TOKEN}
            """;

    public static void main(String[] arguments) throws Exception {
        System.setOut(System.err); // the log
        var properties = new Properties();
        properties.load(new StringReader(PROPERTIES));
        var application = new SpringApplication(SpringResourceServer.class);
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
    SecurityFilterChain introspection(HttpSecurity http) throws Exception {
        return http.authorizeHttpRequests(requests -> requests.requestMatchers("/contacts")
                        .hasAuthority("SCOPE_contacts.read")
                        .anyRequest()
                        .denyAll())
                // Without dPoP, which Spring Security 6.5 enables by itself, a bound token is good for nothing.
                .oauth2ResourceServer(server -> server.opaqueToken(Customizer.withDefaults()).dPoP(Customizer.withDefaults()))
                .build();
    }

    @GetMapping("/contacts")
    Map<String, ?> contacts(@AuthenticationPrincipal OAuth2AuthenticatedPrincipal caller) {
        return Map.of(
                "client_id", caller.getAttribute("client_id"),
                "tenant_id", caller.getAttribute("tenant_id"),
                "run_as", caller.getName());
    }

    /** Verifies tokens by keys. The library knows no Ed25519: while there are no other keys, every token is refused here. */
    @Bean
    @Order(1)
    SecurityFilterChain keys(HttpSecurity http) throws Exception {
        var issuer = System.getenv("TENANT_AUTHORITY_URL");
        var decoder = new SupplierJwtDecoder(() -> {
            var found = NimbusJwtDecoder.withIssuerLocation(issuer).build();
            // The default validator demands the type `JWT`, and compares no audience.
            var validator = JwtValidators.createAtJwtValidator().issuer(issuer).audience(System.getenv("CLOUD_API_URL"));
            found.setJwtValidator(validator.build());
            return found;
        });
        return http.securityMatcher("/by-keys")
                .authorizeHttpRequests(requests -> requests.anyRequest().hasAuthority("SCOPE_contacts.read"))
                .oauth2ResourceServer(
                        server -> server.jwt(jwt -> jwt.decoder(decoder)).dPoP(Customizer.withDefaults()))
                .build();
    }

    @GetMapping("/by-keys")
    Map<String, ?> byKeys(@AuthenticationPrincipal Jwt caller) {
        return Map.of(
                "client_id", caller.getClaim("client_id"),
                "tenant_id", caller.getClaim("tenant_id"),
                "run_as", caller.getSubject());
    }
}
