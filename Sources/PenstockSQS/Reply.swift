// SPDX-License-Identifier: Apache-2.0
internal import Penstock
internal import Synchronization

extension SQSResponse {
  /// A JSON success: an object, or nothing at all for actions without output.
  static func json(_ body: [UInt8], requestID: String) -> SQSResponse {
    SQSResponse(
      status: 200,
      headers: [("Content-Type", jsonType), ("x-amzn-RequestId", requestID)], body: body)
  }

  /// An error in the protocol of its request.
  static func failure(
    _ error: SQSError, in wire: WireProtocol, requestID: String
  ) -> SQSResponse {
    switch wire {
    case .json:
      var writer = JSONWriter()
      writer.beginObject()
      writer.member("__type", error.kind.type)
      // The real service spells this one differently.
      writer.member(error.kind == .accessDenied ? "Message" : "message", error.message)
      writer.endObject()
      return SQSResponse(
        status: error.kind.status,
        headers: [
          ("Content-Type", jsonType), ("x-amzn-RequestId", requestID),
          ("x-amzn-query-error", error.queryError),
        ], body: writer.bytes)
    case .query:
      var xml = XMLWriter("<?xml version=\"1.0\"?>")
      xml.markup("<ErrorResponse xmlns=\"\(XMLWriter.namespace)\"><Error>")
      xml.element("Type", (error.kind.isSenderFault ? "Sender" : "Receiver").utf8)
      xml.element("Code", error.kind.queryCode.utf8)
      xml.element("Message", error.text(in: wire).utf8)
      xml.markup("<Detail/></Error><RequestId>\(requestID)</RequestId></ErrorResponse>")
      return .xml(error.kind.status, xml.bytes, requestID: requestID)
    }
  }

  static func xml(_ status: Int, _ body: [UInt8], requestID: String) -> SQSResponse {
    SQSResponse(
      status: status, headers: [("Content-Type", "text/xml"), ("x-amzn-RequestId", requestID)],
      body: body)
  }
}

/// Makes request ids: UUIDs that do not repeat, without a system call each.
final class RequestIDs: Sendable {
  private let seed: UInt64
  private let counter = Atomic<UInt64>(0)

  init() {
    var generator = SystemRandomNumberGenerator()
    seed = generator.next()
  }

  func next() -> String {
    // Relaxed: only uniqueness counts.
    let count = counter.wrappingAdd(2, ordering: .relaxed).newValue
    return MessageID(
      randomHigh: Self.mix(seed &+ count), randomLow: Self.mix(seed &+ count &+ 1)
    ).description
  }

  /// The output function of SplitMix64: a bijection, so different counts give different ids.
  private static func mix(_ value: UInt64) -> UInt64 {
    var value = value &* 0x9e37_79b9_7f4a_7c15
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
