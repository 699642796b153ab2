// SPDX-License-Identifier: Apache-2.0
internal import NIOCore
internal import NIOHTTP1
internal import PenstockSQS

extension ByteBuffer {
  /// Appends a whole HTTP/1.1 response.
  ///
  /// - Parameter connection: value of the header of that name; nil for none.
  mutating func write(_ response: SQSResponse, date: String, connection: String?) {
    let status = HTTPResponseStatus(statusCode: response.status)
    writeStaticString("HTTP/1.1 ")
    writeString(String(response.status))
    writeStaticString(" ")
    writeString(status.reasonPhrase)
    for (name, value) in response.headers { writeHeader(name, value) }
    writeHeader("Content-Length", String(response.body.count))
    writeHeader("Date", date)
    if let connection { writeHeader("Connection", connection) }
    writeStaticString("\r\n\r\n")
    writeBytes(response.body)
  }

  private mutating func writeHeader(_ name: String, _ value: String) {
    // No header says what a client said. If one did, it could not make another line.
    guard value.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else { return }
    writeStaticString("\r\n")
    writeString(name)
    writeStaticString(": ")
    writeString(value)
  }
}
