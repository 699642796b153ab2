// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import PenstockSQS

extension PenstockServer {
  /// What a server tells clients about itself and takes from them. The defaults suit most.
  public struct Configuration: Sendable {
    /// Twelve digits, part of queue URLs: the account of whoever comes while there are no
    /// credentials, and of the queues that a program sees by their plain names.
    public var accountID = "000000000000"
    /// Appears in the ARNs of queues.
    public var region = "us-east-1"
    /// Most messages in flight of a queue that is made through this server; 0 for no limit. A queue
    /// keeps the one it was made with (`QueueSettings.maximumLeased`).
    public var maximumInFlight = 120_000
    /// Threads for connections; as many as the machine has cores.
    public var eventLoops = System.coreCount
    /// Connections beyond this many are closed as soon as they are accepted. It is cut to what the
    /// limit of open files had room for at `start`, less 256 for the store and the program; raise
    /// that limit (`RLIMIT_NOFILE`) for many clients.
    public var maximumConnections = 20_000
    /// Largest body of one request in bytes. A message of 1 MiB grows in JSON and base64.
    public var maximumBodyBytes = 4 << 20
    /// Bodies of all requests together that have arrived in part or wait for their answer, in
    /// bytes; and as much again for large answers that their clients have not read. What goes
    /// beyond is answered with HTTP 503.
    public var maximumBufferedBytes = 512 << 20
    /// From the first byte of a request to its last.
    public var requestTimeout: Duration = .seconds(60)
    /// How long a connection may stay without a request.
    public var idleTimeout: Duration = .seconds(300)
    /// How long a stop waits for requests that are still arriving or being answered.
    public var drainTimeout: Duration = .seconds(10)
    /// Certificate and key, if connections are to be in TLS.
    public var tls: TLS?
    /// What queue URLs begin with: `http` or `https`, host, perhaps a port and a path, without a
    /// slash at the end. Nil for what the client called the server.
    public var publicURL: String?
    /// Whether `X-Forwarded-For`, `-Proto` and `-Host` say who the client is and what it called the
    /// server. Only behind a proxy that sets all of them.
    public var trustsForwarded = false
    /// Whose limits hold for requests.
    public var limits = Limits.amazon
    /// How queue URLs look.
    public var queueURLs = QueueURLs.standard
    /// The access keys of callers, in the format of the AWS shared credentials file. It is read
    /// again when it changes. Without one nobody is asked, and nothing listens beyond this machine.
    public var credentialsPath: String?
    /// Whether a queue can be purged once a minute only, and its name is taken for a minute after
    /// it was deleted, as on Amazon.
    public var hasCooldowns = false
    /// Files that the server reads before it listens and again when they change.
    public var watchedFiles: [WatchedFiles] = []
    /// How often it looks at them, and at certificate and key.
    public var watchInterval: Duration = .seconds(1)

    /// Whose limits hold for requests.
    public enum Limits: String, Sendable {
      /// Those of Amazon's service.
      case amazon
      /// Those that it had before August 2025: messages and batches of 256 KiB.
      case legacy
      /// Those of the store, where they are wider.
      case extended
    }

    /// How queue URLs look. All of them are understood.
    public enum QueueURLs: String, Sendable {
      /// `BASE/ACCOUNT/NAME`.
      case standard
      /// `BASE/queue/REGION/ACCOUNT/NAME`.
      case path
      /// `BASE/ACCOUNT/NAME` with `REGION.queue.` before the host.
      case domain
    }

    /// Files in PEM. They are read again when they change, for the connections that come then.
    public struct TLS: Sendable {
      /// The server's certificate, and behind it those that lead to one that clients know.
      public var certificatePath: String
      /// Its private key, without a passphrase.
      public var keyPath: String

      /// Where the files are.
      public init(certificatePath: String, keyPath: String) {
        self.certificatePath = certificatePath
        self.keyPath = keyPath
      }
    }

    /// The defaults.
    public init() {}

    /// What is wrong with the configuration for a server on this host; nil if nothing is.
    func problem(on host: String) -> String? {
      if !SQSConfiguration.isAccountID(accountID) { return "the account must be twelve digits" }
      if !SQSConfiguration.isRegion(region) {
        return "the region must be 1 to 32 lower-case letters, digits and hyphens"
      }
      if let publicURL, !SQSConfiguration.isPublicURL(publicURL) {
        return "the public URL must be http or https, a host, perhaps a port and a path, "
          + "without a slash at the end"
      }
      if credentialsPath == nil, !PenstockServer.isLoopback(host) {
        return "it is not loopback, and without credentials anyone who reaches it could use the "
          + "queues"
      }
      return nil
    }

    var service: SQSConfiguration {
      var service = SQSConfiguration()
      service.publicURL = publicURL
      service.trustsForwarded = trustsForwarded
      service.limits = SQSConfiguration.Limits(rawValue: limits.rawValue) ?? .amazon
      service.queueURLs = SQSConfiguration.QueueURLs(rawValue: queueURLs.rawValue) ?? .standard
      service.hasCooldowns = hasCooldowns
      service.accountID = accountID
      service.region = region
      service.maximumInFlight = maximumInFlight
      return service
    }
  }
}

/// Where a server can be reached.
struct ServerAddress: Sendable, CustomStringConvertible {
  var host: String
  var port: Int
  var isSecure = false

  /// A URL.
  var description: String { (isSecure ? "https://" : "http://") + authority }

  /// Host and port, an IPv6 address in brackets.
  var authority: String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }
}

extension Duration {
  /// For timers of the event loop; long beyond use is cut to 100 years.
  var timeAmount: TimeAmount {
    let seconds = min(max(components.seconds, 0), 3_155_760_000)
    return .nanoseconds(seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000)
  }
}
