// SPDX-License-Identifier: Apache-2.0

/// Requests of the older protocol, form in and XML out. This version only says that it does not
/// speak it, in a form that clients of that protocol can show.
enum QueryProtocol {
  static func answer(_ request: SQSRequest, requestID: String) -> SQSResponse {
    guard let name = action(request) else {
      // What the real service says to a request without an action; some clients probe with it.
      return SQSResponse(
        status: 404, headers: [("Content-Type", "text/xml"), ("x-amzn-RequestId", requestID)],
        body: Array("<UnknownOperationException/>".utf8))
    }
    let error: SQSError
    if Action(rawValue: name) != nil || Action.unsupported.contains(name) {
      error = SQSError(
        .unsupportedOperation,
        "This version of Penstock speaks the AWS JSON protocol only. Use a client that sends "
          + "application/x-amz-json-1.0.")
    } else {
      error = SQSError(
        .unknownOperation, "The action \(SQSError.echo(name)) is not valid for this endpoint.")
    }
    return .failure(error, in: .query, requestID: requestID)
  }

  /// The `Action` field of the form, or else of the query string.
  private static func action(_ request: SQSRequest) -> String? {
    if request.method == "POST", let name = field("Action", in: request.body[...]) { return name }
    let target = Array(request.target.utf8)
    guard let mark = target.firstIndex(of: UInt8(ascii: "?")) else { return nil }
    return field("Action", in: target[(mark + 1)...])
  }

  /// The first field of this name that is not empty.
  static func field(_ name: String, in form: ArraySlice<UInt8>) -> String? {
    let prefix = Array((name + "=").utf8)
    for part in form.split(separator: UInt8(ascii: "&")) where part.starts(with: prefix) {
      let value = Array(part.dropFirst(prefix.count))
      if let text = PercentCoding.decode(value, plusIsSpace: true), !text.isEmpty { return text }
    }
    return nil
  }
}
