// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import PenstockSQS

extension PenstockServer {
  /// What a server tells clients about itself and takes from them. The defaults suit most.
  public struct Configuration: Sendable {
    /// Twelve digits: owner of every queue and sender of every message, part of queue URLs.
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

    /// The defaults.
    public init() {}

    var service: SQSConfiguration {
      var service = SQSConfiguration()
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

  /// A URL.
  var description: String { "http://\(authority)" }

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
