// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
public import PenstockSQS

/// Where a server listens and what it takes from clients.
public struct ServerConfiguration: Sendable {
  public var host = "127.0.0.1"
  /// Zero takes any free port; `PenstockServer.start` says which.
  public var port = 9324
  public var eventLoops = System.coreCount
  /// Connections beyond this many are closed as soon as they are accepted.
  public var maximumConnections = 20_000
  /// Largest body of one request. A message of 1 MiB grows in JSON and base64.
  public var maximumBodyBytes = 4 << 20
  /// Bodies of all requests together that have arrived in part or wait for their answer.
  public var maximumBufferedBytes = 512 << 20
  /// From the first byte of a request to its last.
  public var requestTimeout: Duration = .seconds(60)
  /// How long a connection may stay without a request.
  public var idleTimeout: Duration = .seconds(300)
  /// How long a stop waits for requests that are still arriving or being answered.
  public var drainTimeout: Duration = .seconds(10)
  public var service = SQSConfiguration()

  public init() {}
}

/// Where a server can be reached.
public struct ServerAddress: Hashable, Sendable, CustomStringConvertible {
  public var host: String
  public var port: Int

  /// A URL.
  public var description: String { "http://\(authority)" }

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
