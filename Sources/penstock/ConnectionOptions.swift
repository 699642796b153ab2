// SPDX-License-Identifier: Apache-2.0
import ArgumentParser
import PenstockSQS
import PenstockServer

/// Options of `penstock serve` about who it is, its connections and what it takes from them.
struct ConnectionOptions: ParsableArguments {
  private static let defaults = PenstockServer.Configuration()

  @Option(help: "Account of all queues: twelve digits.")
  var account = defaults.accountID

  @Option(help: "Region that the ARNs of queues name.")
  var region = defaults.region

  @Option(
    help: """
      What queue URLs begin with, for example https://queues.example.com. Without it they begin \
      with what the client called the server.
      """)
  var publicURL: String?

  @Flag(
    help: """
      Take the client's address, scheme and host from X-Forwarded-For, -Proto and -Host. Only \
      behind a proxy that sets all of them.
      """)
  var trustForwarded = false

  @Option(help: "Certificate chain in PEM. With it and a key, connections are in TLS.")
  var tlsCertificate: String?

  @Option(help: "Private key of the certificate in PEM, without a passphrase.")
  var tlsKey: String?

  @Option(
    help: ArgumentHelp(
      "Whose limits hold: amazon's, legacy for those before August 2025, extended for the store's.",
      valueName: "amazon|legacy|extended"),
    transform: { text throws in
      guard let limits = PenstockServer.Configuration.Limits(rawValue: text) else {
        throw ValidationError("--limits must be amazon, legacy or extended.")
      }
      return limits
    })
  var limits = defaults.limits

  @Option(
    help: ArgumentHelp(
      "How queue URLs look: /ACCOUNT/NAME, /queue/REGION/ACCOUNT/NAME, or REGION.queue.HOST.",
      valueName: "standard|path|domain"),
    transform: { text throws in
      guard let style = PenstockServer.Configuration.QueueURLs(rawValue: text) else {
        throw ValidationError("--queue-urls must be standard, path or domain.")
      }
      return style
    })
  var queueUrls = defaults.queueURLs

  @Option(help: "Most connections at a time. The limit of open files may leave room for fewer.")
  var maximumConnections = defaults.maximumConnections

  @Option(help: "Largest body of one request.")
  var maximumBodyBytes = defaults.maximumBodyBytes

  @Option(
    help: "Most bytes of all request bodies at a time, and as much again of answers not read.")
  var maximumBufferedBytes = defaults.maximumBufferedBytes

  @Option(help: "How long a request may take to arrive, and its answer to be read.")
  var requestTimeoutSeconds = Int(defaults.requestTimeout.components.seconds)

  @Option(help: "How long a connection may stay without a request.")
  var idleTimeoutSeconds = Int(defaults.idleTimeout.components.seconds)

  func validate() throws {
    guard SQSConfiguration.isAccountID(account) else {
      throw ValidationError("--account must be twelve digits.")
    }
    guard SQSConfiguration.isRegion(region) else {
      throw ValidationError(
        "--region must be 1 to 32 lower-case letters, digits and hyphens.")
    }
    if let publicURL, !SQSConfiguration.isPublicURL(publicURL) {
      throw ValidationError(
        "--public-url must be http or https, a host, perhaps a port and a path, without a slash "
          + "at the end.")
    }
    guard (tlsCertificate == nil) == (tlsKey == nil) else {
      throw ValidationError("--tls-certificate and --tls-key must be given together.")
    }
    guard (1...1_000_000).contains(maximumConnections) else {
      throw ValidationError("--maximum-connections must be from 1 to 1000000.")
    }
    guard (1 << 10...1 << 30).contains(maximumBodyBytes) else {
      throw ValidationError("--maximum-body-bytes must be from 1024 to 1073741824.")
    }
    guard (maximumBodyBytes...1 << 40).contains(maximumBufferedBytes) else {
      throw ValidationError(
        "--maximum-buffered-bytes must be from --maximum-body-bytes to 1099511627776.")
    }
    guard (1...86_400).contains(requestTimeoutSeconds) else {
      throw ValidationError("--request-timeout-seconds must be from 1 to 86400.")
    }
    guard (1...86_400).contains(idleTimeoutSeconds) else {
      throw ValidationError("--idle-timeout-seconds must be from 1 to 86400.")
    }
  }

  func apply(to configuration: inout PenstockServer.Configuration) {
    configuration.accountID = account
    configuration.region = region
    configuration.publicURL = publicURL
    configuration.trustsForwarded = trustForwarded
    if let tlsCertificate, let tlsKey {
      configuration.tls = .init(certificatePath: tlsCertificate, keyPath: tlsKey)
    }
    configuration.limits = limits
    configuration.queueURLs = queueUrls
    configuration.maximumConnections = maximumConnections
    configuration.maximumBodyBytes = maximumBodyBytes
    configuration.maximumBufferedBytes = maximumBufferedBytes
    configuration.requestTimeout = .seconds(requestTimeoutSeconds)
    configuration.idleTimeout = .seconds(idleTimeoutSeconds)
  }
}
