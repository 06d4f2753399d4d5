#!/usr/bin/env python3
"""pjsua2_call.py NAME TRANSPORT NUMBER DIAL CA [srtp]: registers, calls DIAL until media has come back, hangs up.

One line a thing that happened; "rtp RECEIVED SENT" from the stream's own statistics, "srtp" when the media was encrypted.
"""
import sys
import time

import pjsua2 as pj

name, transport, number, dial, ca = sys.argv[1:6]
srtp = sys.argv[6:] == ["srtp"]
deadline = time.time() + 25


def say(*words):
    print(*words, flush=True)


class Account(pj.Account):
    registered = 0

    def onRegState(self, event):
        self.registered = event.code
        say("registered", event.code)


class Call(pj.Call):
    state, ended = "", False

    def onCallState(self, event):
        info = self.getInfo()
        say("call", info.stateText, info.lastStatusCode)
        self.state = info.stateText
        self.ended = info.state == pj.PJSIP_INV_STATE_DISCONNECTED


def until(done):
    while not done():
        if time.time() > deadline:
            say("gave up")
            sys.exit(1)
        endpoint.libHandleEvents(20)


endpoint = pj.Endpoint()
endpoint.libCreate()
config = pj.EpConfig()
config.logConfig.level = config.logConfig.consoleLevel = 0
config.uaConfig.threadCnt = 0
config.uaConfig.mainThreadOnly = True
config.medConfig.noVad = True  # silence is sent too
endpoint.libInit(config)
tls = pj.TransportConfig()
tls.tlsConfig.CaListFile = ca
tls.tlsConfig.verifyServer = True
kinds = {"udp": pj.PJSIP_TRANSPORT_UDP, "tcp": pj.PJSIP_TRANSPORT_TCP, "tls": pj.PJSIP_TRANSPORT_TLS}
endpoint.transportCreate(kinds[transport], tls)
endpoint.libStart()
endpoint.audDevManager().setNullDev()

parameter = "" if transport == "udp" else ";transport=" + transport
settings = pj.AccountConfig()
settings.idUri = f"sip:{number}@{name}"
settings.regConfig.registrarUri = f"sip:{name}{parameter}"
settings.sipConfig.authCreds.append(pj.AuthCredInfo("digest", "*", number, 0, "secret"))
if srtp:
    settings.mediaConfig.srtpUse = pj.PJMEDIA_SRTP_MANDATORY
    settings.mediaConfig.srtpSecureSignaling = 1 if transport == "tls" else 0
account = Account()
account.create(settings)
until(lambda: account.registered)
call = Call(account)
call.makeCall(f"sip:{dial}@{name}{parameter}", pj.CallOpParam(True))
until(lambda: call.ended or call.state == "CONFIRMED")


def packets():
    statistics = call.getStreamStat(0).rtcp
    return statistics.rxStat.pkt, statistics.txStat.pkt


if not call.ended:
    until(lambda: call.ended or min(packets()) >= 50)
    say("rtp", *packets())
    if "SRTP status: Active" in call.dump(True, ""):
        say("srtp")
    call.hangup(pj.CallOpParam(True))
    until(lambda: call.ended)
account.setRegistration(False)
until(lambda: not account.getInfo().regIsActive)
del call, account
endpoint.libDestroy()
