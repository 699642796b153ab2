// SPDX-License-Identifier: Apache-2.0
public import Penstock
internal import Synchronization

/// What the host of the API hands requests to: the service, or its stand-in while there is no store
/// yet.
public protocol SQSHandler: Sendable {
  /// Carries out one request: see `SQSService.handle`.
  func handle(
    _ request: SQSRequest, completion: @escaping @Sendable (SQSReply) -> Void
  ) -> ReceiveTicket?
  /// Ends a receive that waits.
  func cancel(_ ticket: ReceiveTicket)
  /// The answer to a request whose body is over the limit of the host.
  func tooLarge(_ request: SQSRequest, limit: Int) -> SQSResponse
  /// The answer to a request that did not arrive in time.
  func tooSlow(_ request: SQSRequest) -> SQSResponse
  /// The answer when the host has no room for another request.
  func overloaded(_ request: SQSRequest) -> SQSResponse
}

extension SQSService: SQSHandler {}

extension SQSResponse {
  /// The answer to what is no proper HTTP request, whatever it may want.
  public static var badRequest: SQSResponse { SQSResponse(status: 400, headers: [], body: []) }
}

/// Answers while the store is being opened: health to everybody, to all else that the service is
/// unavailable, in the protocol of the request.
public final class SQSOpening: SQSHandler {
  private let progress = Mutex((segments: 0, total: 0))
  private let requestIDs = RequestIDs()

  /// Nothing is known of the store yet.
  public init() {}

  /// Notes how far recovery is: see `StoreEvent.recovering`.
  public func note(segments: Int, of total: Int) {
    progress.withLock { $0 = (segments, total) }
  }

  public func handle(
    _ request: SQSRequest, completion: @escaping @Sendable (SQSReply) -> Void
  ) -> ReceiveTicket? {
    if request.method == "GET",
      let response = Introspection.opening(request, progress.withLock { $0 })
    {
      completion(SQSReply { response })
    } else {
      let response = refusal(.serviceUnavailable, "The store is being opened.", request)
      completion(SQSReply { response })
    }
    return nil
  }

  public func cancel(_ ticket: ReceiveTicket) {}

  public func tooLarge(_ request: SQSRequest, limit: Int) -> SQSResponse {
    refusal(.requestTooLarge, "The request body is larger than \(limit) bytes.", request)
  }

  public func tooSlow(_ request: SQSRequest) -> SQSResponse {
    refusal(.requestTimeout, "The request did not arrive in time.", request)
  }

  public func overloaded(_ request: SQSRequest) -> SQSResponse {
    refusal(.serviceUnavailable, "The server holds too many requests. Try again.", request)
  }

  private func refusal(
    _ kind: SQSError.Kind, _ text: String, _ request: SQSRequest
  ) -> SQSResponse {
    .failure(SQSError(kind, text), in: WireProtocol(request), requestID: requestIDs.next())
  }
}
