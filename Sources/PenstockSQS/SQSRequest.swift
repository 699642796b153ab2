// SPDX-License-Identifier: Apache-2.0

/// Finds headers of a request. The host of the service wraps its own type.
public protocol SQSHeaders: Sendable {
  /// The first value of this header, whatever the case of its name.
  func first(_ name: String) -> String?
  /// All values of this header in the order in which they came.
  func all(_ name: String) -> [String]
  /// The names of the headers in lower case, each once.
  var names: [String] { get }
}

/// One HTTP request, complete.
public struct SQSRequest: Sendable {
  /// In capitals, for example `POST`.
  public var method: String
  /// Path and query as they came.
  public var target: String
  /// Its headers.
  public var headers: any SQSHeaders
  /// Its bytes.
  public var body: [UInt8]
  /// The client's address as text, without the port; nil when it has none.
  public var remoteAddress: String?
  /// Whether it came over TLS.
  public var isSecure: Bool

  /// A request as it came.
  public init(
    method: String, target: String, headers: any SQSHeaders, body: [UInt8],
    remoteAddress: String? = nil, isSecure: Bool = false
  ) {
    self.method = method
    self.target = target
    self.headers = headers
    self.body = body
    self.remoteAddress = remoteAddress
    self.isSecure = isSecure
  }
}

/// One HTTP response but for `Content-Length`, `Date` and what concerns the connection.
public struct SQSResponse: Sendable {
  /// The HTTP status.
  public var status: Int
  /// In the order in which to send them.
  public var headers: [(name: String, value: String)]
  /// Its bytes.
  public var body: [UInt8]

  static let jsonType = "application/x-amz-json-1.0"
}

/// An answer that is known but may not be written out yet. Engine threads hand it over; whoever
/// owns the connection calls `response()` and pays for digests and escaping.
public struct SQSReply: Sendable {
  private let make: @Sendable () -> SQSResponse

  init(_ make: @escaping @Sendable () -> SQSResponse) { self.make = make }

  /// Makes the response. Costs its digests and escaping each time.
  public func response() -> SQSResponse { make() }
}

/// The wire protocol a request is in.
enum WireProtocol: Sendable {
  case json
  /// Forms in, XML out.
  case query

  /// Decides by content type, then by target.
  init(_ request: SQSRequest) {
    let header = request.headers.first("content-type") ?? ""
    // What the SDKs send.
    if header == SQSResponse.jsonType {
      self = .json
      return
    }
    let type = header.prefix { $0 != ";" }.lowercased()
    let trimmed = type.filter { $0 != " " && $0 != "\t" }
    if trimmed == "application/x-www-form-urlencoded" {
      self = .query
    } else if trimmed == "application/x-amz-json-1.0" || trimmed == "application/x-amz-json-1.1" {
      self = .json
    } else if request.headers.first("x-amz-target")?.hasPrefix("AmazonSQS.") == true {
      self = .json
    } else {
      self = .query
    }
  }
}
